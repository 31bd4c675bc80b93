"""What bf16 and int8 lose against f32 at the same settings: mIoU of a network, dense and coarse to fine.

python benchmarks/precision.py camvid_rn18 camvid:data/camvid test train > found.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import torch
from tqdm import tqdm

import foveal
from foveal.benchmark.machine import describe_machine
from foveal.calibration.configure import configure
from foveal.calibration.engine import PRECISIONS, Engine, find_engine, int8_scales
from foveal.evaluation.metrics import Confusion
from foveal.methods import DenseConfig

BUDGETS = (0.2, 0.3, 0.4, 0.55)


def engines(model: Any, images: list[torch.Tensor]) -> dict[str, Engine]:
    """Make what runs a model in every precision; ranges of int8 come from images without labels."""
    plain = find_engine(replace(model, compiled=None))
    scales = int8_scales(plain, images)
    return {
        p: plain if p == "f32" else plain.in_precision(p, scales if p == "int8" else None) for p in PRECISIONS
    }


@torch.inference_mode()
def rows(model: Any, made: dict[str, Engine], dataset: Any) -> Iterator[dict[str, object]]:
    """Measure every setting in every precision on the same images."""
    configs = {("dense", 1.0): DenseConfig()}
    configs |= {("coarse_to_fine", b): configure(model, "coarse_to_fine", b, {}) for b in BUDGETS}
    methods = {
        (k, p): engine.make(k[0], config) for k, config in configs.items() for p, engine in made.items()
    }
    found = {key: Confusion(len(dataset.classes)) for key in methods}
    same: dict[Any, list[float]] = {key: [] for key in methods}
    for n in tqdm(range(len(dataset)), unit="image"):
        image, target = dataset[n]
        batch = image[None].contiguous(memory_format=torch.channels_last)
        exact: dict[Any, torch.Tensor] = {}
        for (setting, precision), method in methods.items():
            labels = method.labels(batch)
            found[setting, precision].add(labels, target[None])
            exact.setdefault(setting, labels)  # f32 is the first
            same[setting, precision].append(float((labels == exact[setting]).double().mean()))
    for (name, budget), precision in methods:
        key = (name, budget), precision
        loss = found[(name, budget), "f32"].miou - found[key].miou
        agreement = sum(same[key]) / len(same[key])
        row = {"method": name, "budget": budget, "precision": precision, "miou": round(found[key].miou, 5)}
        yield row | {"loss": round(loss, 5), "agreement_with_f32": round(agreement, 5)}


def main() -> None:
    """Run from the command line."""
    name, data, split, calibration = sys.argv[1:]
    model, dataset, source = (
        foveal.load_model(name),
        foveal.open_dataset(data, split),
        foveal.open_dataset(data, calibration),
    )
    images = [source[k * len(source) // 24][0] for k in range(min(24, len(source)))]
    found = list(rows(model, engines(model, images), dataset))
    command = f"python benchmarks/precision.py {name} {data} {split} {calibration}"
    head = asdict(describe_machine()) | {"command": command, "images": len(dataset)}
    print(json.dumps(head | {"rows": found}, indent=1))


if __name__ == "__main__":
    main()
