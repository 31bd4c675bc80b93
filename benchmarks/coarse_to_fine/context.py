"""Where the loss of a refined tile comes from: global context that is partly coarse, and what could mend it.

    python benchmarks/coarse_to_fine/context.py OUT.json MODEL [--every 6]

Rows: as it is; with the context module's output of the dense network put in its place (a bound: nobody has
it); with coarse features brought to fine ones by a linear map before they enter the context module; and two
controls of the same work, tiles at random and the whole image reduced. The map is fitted by ridge regression
on training images, without labels.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.benchmark.machine import describe_machine
from foveal.data.dataset import Dataset, open_dataset
from foveal.evaluation.baselines import Reduced
from foveal.evaluation.metrics import Confusion
from foveal.hub.checkpoint import load_model
from foveal.methods import AdaptiveSegmenter, CoarseToFine
from foveal.ops import classify, halve
from foveal.policies import POLICIES
from foveal.policies.refinement import Refinement
from foveal.storage.atomic import write_atomically
from foveal.tiles import dense as whole_maps

BUDGETS = (0.4, 0.55, 0.65)
REPLACED = "as it is", "context of the dense network", "linear map"
"""What becomes of the context, where tiles are chosen by their scores."""
FITTED = 40
"""Training images for the linear map."""


class Probe:
    """Watches and replaces what goes through a context module."""

    def __init__(self, module: nn.Module) -> None:
        self.mode, self.seen, self.answer = "as it is", torch.empty(0), torch.empty(0)
        self.weight, self.bias = torch.empty(0), torch.empty(0)
        kind, probe = type(module), self
        forward, compose = kind.forward, whole_maps.compose_tiles

        def watched(module: nn.Module, x: Tensor) -> Tensor:
            y = forward(module, x)
            if probe.mode == "record":
                probe.seen, probe.answer = x.clone(), y.clone()
            replace = probe.mode == "context of the dense network" and y.shape == probe.answer.shape
            return probe.answer if replace else y

        def composed(pool: Tensor, layout: Any, base: int = 0) -> Tensor:
            coarse = layout.level > base
            if probe.mode == "linear map" and pool.shape[1] == len(probe.bias) and bool(coarse.any()):
                pool = pool.clone()
                mapped = torch.einsum("oi,bihw->bohw", probe.weight, pool[coarse])
                pool[coarse] = mapped + probe.bias.view(-1, 1, 1)
            return compose(pool, layout, base)

        kind.forward, whole_maps.compose_tiles = watched, composed  # type: ignore[assignment]

    def fit(self, network: nn.Module, data: Dataset) -> float:
        """Fit the linear map; return the share of the variance that it explains."""
        xs, ys = [], []
        for k in range(FITTED):
            image = data[k * len(data) // FITTED][0][None]
            self.mode = "record"
            network(image)
            fine = self.seen
            network(halve(image))
            coarse = F.interpolate(self.seen, scale_factor=2, mode="bilinear", align_corners=False)
            coarse = coarse[:, :, : fine.shape[2], : fine.shape[3]]
            for found, x in ((xs, coarse), (ys, fine)):
                found.append(x.movedim(1, -1).flatten(0, 2).double())
        x, y = torch.cat(xs), torch.cat(ys)
        u, v = x - x.mean(0), y - y.mean(0)
        ridge = 1e-2 * u.square().mean() * len(u) * torch.eye(u.shape[1])
        weight = torch.linalg.solve(u.T @ u + ridge, u.T @ v).T
        self.weight, self.bias = weight.float(), (y.mean(0) - weight @ x.mean(0)).float()
        return 1 - float((v - u @ weight.T).square().sum() / v.square().sum())


def ways(network: nn.Module) -> dict[tuple[str, float], tuple[str, AdaptiveSegmenter]]:
    """Return what becomes of the context and the method, by row and budget."""
    found: dict[tuple[str, float], tuple[str, AdaptiveSegmenter]] = {}
    for budget in BUDGETS:
        ours = CoarseToFine(network, budget, 32, 1).eval()
        found |= {(mode, budget): (mode, ours) for mode in REPLACED}
        random = Refinement(POLICIES["random"].score, isolated_gain=1.0)
        at_random = CoarseToFine(network, budget, 32, 1, random).eval()
        found["tiles at random", budget] = "as it is", at_random
        found["whole image reduced", budget] = "as it is", Reduced(network, budget**0.5).eval()
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("model")
    parser.add_argument("--data", default="camvid:data/camvid")
    parser.add_argument("--every", type=int, default=6)
    options = parser.parse_args()
    network = load_model(options.model).network
    (name,) = network.dense_modules
    probe = Probe(network.get_submodule(name))
    test, train = (open_dataset(options.data, split) for split in ("test", "train"))
    with torch.inference_mode():
        explained = probe.fit(network, train)
        methods = ways(network)
        tallies = {key: Confusion(len(test.classes)) for key in methods}
        same: dict[tuple[str, float], list[float]] = {key: [] for key in tallies}
        whole = Confusion(len(test.classes))
        for index in range(0, len(test), options.every):
            image, target = test[index]
            image, target = image[None].to(memory_format=torch.channels_last), target[None]
            probe.mode = "record"
            dense = classify(network(image), (image.shape[2], image.shape[3]))
            whole.add(dense, target)
            for key, (mode, method) in methods.items():
                probe.mode = mode
                labels = method(image).labels
                tallies[key].add(labels, target)
                same[key].append(float((labels == dense).double().mean()))
    rows: list[dict[str, Any]] = [{"context": "dense", "budget": 1.0, "miou": round(whole.miou, 4)}]
    for key, tally in tallies.items():
        agreement = round(sum(same[key]) / len(same[key]), 4)
        rows.append(
            {"context": key[0], "budget": key[1], "miou": round(tally.miou, 4), "agreement": agreement}
        )
    folder = "benchmarks/coarse_to_fine"
    words = f"{options.model} --data {options.data} --every {options.every}"
    record = asdict(describe_machine()) | {
        "command": f"python {folder}/context.py {folder}/{options.out.name} {words}",
        "images": len(range(0, len(test), options.every)),
        "explained": round(explained, 3),
        "rows": rows,
    }
    write_atomically(options.out, json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
