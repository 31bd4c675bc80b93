"""MACs of the published settings of Dynamic Routing at 1024x2048, beside the published figures.

    python benchmarks/routing/macs.py benchmarks/routing/macs.json

All published GFLOPs count one multiply-accumulate as one FLOP, two more for every sample of a norm and one
for every sample of an activation; nothing for bilinear enlargement, nothing for what the initial cell
computes, and half of the decoder, as the width of its maps is taken from their height. So the same network
has two numbers here: MACs as they run, and the count that the public code makes. No share of open paths is
published: the last columns are the shares that the published figures imply.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from foveal.benchmark.machine import describe_machine
from foveal.cost import count_macs
from foveal.models import create_model
from foveal.models.lattice import SCALES, LatticeShape
from foveal.routes import FIXED, LatticeCosts, Route, fixed_route
from foveal.storage.atomic import write_atomically

SIZE, TRAINED, CLASSES, WIDTH = (1024, 2048), (768, 768), 19, 64
FLOPS_ALL = 26.3
"""C_all of the public code at 768x768 [GFLOP]."""


@dataclass(frozen=True)
class Published:
    """A row of the paper, and of its authors' second run [GFLOP]."""

    name: str
    layers: int
    small_gates: bool
    paper: float
    again: float


ROWS = (
    Published("Dynamic-A", 16, True, 44.9, 52.5),
    Published("Dynamic-B", 16, True, 58.7, 58.9),
    Published("Dynamic-C", 16, True, 66.6, 59.8),
    Published("Dynamic-Raw", 16, False, 119.5, 114.9),
    Published("Dynamic-Raw, 558k steps", 16, False, 113.3, 114.2),
    Published("Dynamic-Raw, ImageNet", 16, False, 119.4, 117.8),
    Published("Dynamic-Raw, ImageNet, 33 layers", 33, False, 242.3, 243.1),
)


class AsPublished:
    """The count of the public code, for a lattice on an image [FLOP].

    Args:
        costs: The lattice.
    """

    def __init__(self, costs: LatticeCosts) -> None:
        self.costs, self.shape = costs, costs.shape

    def fixed(self) -> float:
        """Return stem, decoder and all gates."""
        width, (height, across) = self.shape.width, self.costs.size
        half, quarter = height // 2 * (across // 2), self._samples(0)
        stem = (27 * width + 3 * width) * half + 9 * width * half + (width**2 + 3 * width) * half
        stem += 9 * width * quarter + (width**2 + 3 * width) * quarter
        gates = sum(self._gate(*cell) for cell in self.shape.cells if cell[0])
        decoder = 0
        for scale in range(SCALES):
            side = self.costs.sides[scale][0]
            channels = self.shape.channels(scale)
            out = channels // 2 if scale else channels
            decoder += side * side * out * (channels + 3)
        side = self.costs.sides[0][0]
        return stem + gates + decoder + side * side * self.shape.classes * (9 * width + 1)

    def routed(self, layer: int, scale: int, ways: Iterable[str]) -> float:
        """Return a cell and paths out of it; of the initial cell its paths alone."""
        channels, samples = self.shape.channels(scale), self._samples(scale)
        found = 0.0 if layer == 0 else samples * channels * (2 * (9 + channels) + 5)
        for way in ways:
            found += samples * channels  # the activation that every transform begins with
            if way == "up":
                found += samples * (channels // 2) * (channels + 3)
            elif way == "down":
                found += samples / 4 * 2 * channels * (channels + 3)
        return found

    def all_routed(self) -> float:
        """Return all cells and paths."""
        return sum(self.routed(*cell, self.shape.ways(*cell)) for cell in self.shape.cells)

    def _gate(self, layer: int, scale: int) -> float:
        inner, samples = self.shape.channels(scale) // 2, self._samples(scale)
        samples = samples / 16 if self.costs.small_gates else samples
        return samples * inner * (self.shape.channels(scale) + 3 + 1) + inner * len(
            self.shape.ways(layer, scale)
        )

    def _samples(self, scale: int) -> int:
        return self.costs.sides[scale][0] * self.costs.sides[scale][1]


def row(published: Published) -> dict[str, object]:
    costs = LatticeCosts(LatticeShape(published.layers, WIDTH, CLASSES), SIZE, 3, published.small_gates)
    count = AsPublished(costs)
    gates = sum(costs.gate(*cell) for cell in costs.shape.cells)
    whole, ours = count.fixed() + count.all_routed(), costs.dense + gates
    implied = [
        (figure * 1e9 - count.fixed()) / count.all_routed() for figure in (published.paper, published.again)
    ]
    return {
        "setting": published.name,
        "layers": published.layers,
        "small_gates": published.small_gates,
        "paper_gflops": published.paper,
        "again_gflops": published.again,
        "all_open_gmacs": round(ours / 1e9, 2),
        "of_which_gates": round(gates / 1e9, 2),
        "all_open_as_published": round(whole / 1e9, 2),
        "implied_open_share": [round(share, 3) for share in implied],
        "gmacs_at_that_share": [
            round((costs.least + gates + share * costs.routed) / 1e9, 1) for share in implied
        ],
    }


def fixed(name: str) -> dict[str, object]:
    costs = LatticeCosts(LatticeShape(16, WIDTH, CLASSES), SIZE)
    return {
        "route": name,
        "gmacs": round(costs.of(fixed_route(name, 16)) / 1e9, 2),
        "work": round(costs.work(fixed_route(name, 16)), 3),
    }


def main() -> None:
    shape = LatticeShape(16, WIDTH, CLASSES)
    with torch.device("meta"):
        counted = count_macs(lambda: create_model("lattice16").eval()(torch.empty(1, 3, *SIZE))).total
    costs = LatticeCosts(shape, SIZE)
    assert counted == costs.dense == costs.of(Route.all_open(16)), "arithmetic and count are one"
    trained = AsPublished(LatticeCosts(shape, TRAINED))
    found = asdict(describe_machine()) | {
        "command": f"python benchmarks/routing/macs.py {sys.argv[1]}",
        "size": SIZE,
        "classes": CLASSES,
        "rows": [row(each) for each in ROWS],
        "fixed_16_layers": [fixed(name) for name in FIXED],
        "cells_and_paths_at_768x768": {
            "public code, C_all": FLOPS_ALL,
            "counted as published": round(trained.all_routed() / 1e9, 2),
            "macs, initial cell and enlargement included": round(trained.costs.routed / 1e9, 2),
        },
    }
    write_atomically(Path(sys.argv[1]), json.dumps(found, indent=1) + "\n")
    for each in found["rows"]:  # type: ignore[union-attr, attr-defined]
        print(each)
    print(found["fixed_16_layers"], found["cells_and_paths_at_768x768"], sep="\n")


main()
