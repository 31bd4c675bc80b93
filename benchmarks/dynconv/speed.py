"""Milliseconds of residual units at 40 % of their positions, beside the same units dense, in one executor.

    python benchmarks/dynconv/speed.py benchmarks/dynconv/speed.json [MODEL]...

Three stacks of four units (basic blocks, bottlenecks, inverted residuals) on a map of a 960x720 image, then
whole networks on such an image up to its labels, gates and the choice of positions included; trained models
with their own gates if some are given. Gates that nobody has trained follow the features of the network. A
budget opens 40 % of the positions in the mean of all units. Dense and gated run in turns.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foveal.benchmark.machine import describe_machine
from foveal.cost import alternate, keep_memory
from foveal.data.dataset import open_dataset
from foveal.fusion import fuse
from foveal.gates import Gates
from foveal.hub.checkpoint import load_model
from foveal.methods import Dense, DynConv, DynConvConfig
from foveal.models import create_model
from foveal.models.mobilenet import InvertedResidual
from foveal.models.resnet import BasicBlock, Bottleneck
from foveal.ops import tuning
from foveal.storage.atomic import write_atomically

OPEN, ROUNDS, SIDES, UNITS = 0.4, 21, (1, 4), 4
"""Share of the positions; timed rounds; sides of the squares that are decided as one; units in a stack."""
STACKS: dict[str, tuple[int, int, Callable[[], nn.Module]]] = {
    "basic block, 128 channels": (128, 8, lambda: BasicBlock(128, 128, 1)),
    "bottleneck, 256 channels": (256, 4, lambda: Bottleneck(256, 64, 1)),
    "inverted residual, 32 channels": (32, 8, lambda: InvertedResidual(32, 32, 6, 1)),
}
"""Channels, stride of the map, and a unit."""
NETWORKS = ("swiftnet_rn18", "swiftnet_rn50", "swiftnet_mobilenetv2")


class Stack(nn.Module):
    """Units in a row behind means of squares of pixels, brought to their channels, and a classifier."""

    def __init__(self, channels: int, stride: int, unit: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.AvgPool2d(stride), nn.Conv2d(3, channels, 1), nn.ReLU())
        self.units = nn.Sequential(*(unit() for _ in range(UNITS)))
        self.head = nn.Conv2d(channels, 8, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Map images [N, 3, H, W] to logits [N, 8, H / stride, W / stride]."""
        return self.head(self.units(self.stem(image)))


def open_share(method: DynConv, image: Tensor) -> float:
    """Return the mean share of the positions of all units that are open."""
    return float(torch.tensor([float(mask.double().mean()) for mask in method.positions(image)]).mean())


def at_share(network: nn.Module, gates: Gates | None, side: int, image: Tensor) -> DynConv:
    """Make the method whose budget opens `OPEN` of the positions, by bisection."""
    low, high = DynConv(network, DynConvConfig(0.9), gates).fixed, 1.0
    for _ in range(9):
        budget = (low + high) / 2
        method = DynConv(network, DynConvConfig(budget, side=side), gates).eval()
        low, high = (low, budget) if open_share(method, image) > OPEN else (budget, high)
    return method


def labels(method: Any, image: Tensor) -> Tensor:
    return method(image).labels


def row(name: str, network: nn.Module, gates: Gates | None, image: Tensor) -> list[dict[str, Any]]:
    """Time a network dense, and gated by position and by square."""
    dense = Dense(network).eval()
    with torch.inference_mode(), tuning():
        dense(image)
        made = {side: at_share(network, gates, side, image) for side in SIDES}
    runs = {"dense": partial(labels, dense, image)}
    runs |= {str(side): partial(labels, method, image) for side, method in made.items()}
    times = alternate(runs, ROUNDS, 3)
    found = []
    for side, method in made.items():
        with torch.inference_mode():
            work, share = float(method(image).trace.work), open_share(method, image)
        ours, theirs = times[str(side)], times["dense"]
        found.append(
            {
                "network": name,
                "side": side,
                "open": round(share, 3),
                "work": round(work, 4),
                "ms": round(ours.median, 2),
                "p95_ms": round(ours.p95, 2),
                "dense_ms": round(theirs.median, 2),
                "dense_p95_ms": round(theirs.p95, 2),
                "share_of_dense_ms": round(ours.median / theirs.median, 3),
            }
        )
        print(json.dumps(found[-1]))
    return found


def main() -> None:
    keep_memory()
    torch.manual_seed(0)
    image = open_dataset("camvid:data/camvid", "full_test")[3][0][None]
    image = image.contiguous(memory_format=torch.channels_last)
    rows = []
    for name, shape in STACKS.items():
        rows += row(f"{UNITS} units: {name}", fuse(Stack(*shape).eval()), None, image)
    for name in NETWORKS:
        rows += row(name, fuse(create_model(name, 11).eval()), None, image)
    for path in sys.argv[2:]:
        model = load_model(path)
        rows += row(model.name, fuse(model.network), model.part(Gates), image)
    record = asdict(describe_machine()) | {
        "command": f"python benchmarks/dynconv/speed.py {' '.join(sys.argv[1:])}",
        "threads": torch.get_num_threads(),
        "rows": rows,
    }
    write_atomically(Path(sys.argv[1]), json.dumps(record, indent=1) + "\n")


main()
