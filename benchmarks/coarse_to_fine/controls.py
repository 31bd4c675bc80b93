"""Controls of `planners.py`: the same images and budgets, with tiles at random and the whole image reduced.

    python benchmarks/coarse_to_fine/controls.py OUT.json

Rows of random tiles have the first pass and the schedule of the rows that they stand beside: one direct step
to full resolution, or level by level.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from planners import CASES
from torch import nn
from tqdm import tqdm

from foveal.benchmark.machine import describe_machine
from foveal.data.dataset import open_dataset
from foveal.evaluation.baselines import Reduced
from foveal.hub.checkpoint import load_model
from foveal.methods import AdaptiveSegmenter, CoarseToFine, Dense
from foveal.objectives.confusion import Confusion
from foveal.policies import POLICIES
from foveal.policies.refinement import Refinement
from foveal.storage.atomic import write_atomically

DEEPEST = 2
"""Level of the first pass, level by level."""


def controls(network: nn.Module, budget: float, level: int) -> dict[str, AdaptiveSegmenter]:
    """Return the methods of a budget, by schedule for those that have one."""
    direct, by_level = (
        Refinement(POLICIES["random"].score, isolated_gain=1.0, schedule=schedule)
        for schedule in ("direct", "levels")
    )
    return {
        "random, direct": CoarseToFine(network, budget, 32, level, direct).eval(),
        "random, levels": CoarseToFine(network, budget, 32, DEEPEST, by_level).eval(),
        "reduced": Reduced(network, budget**0.5).eval(),
    }


@torch.inference_mode()
def measure(
    model: str, spec: str, step: int, level: int, budgets: tuple[float, ...]
) -> list[dict[str, object]]:
    """Run all controls on every `step`-th image of the test split."""
    network, data = load_model(model).network.eval(), open_dataset(spec, "test")
    dense, images = Dense(network).eval(), range(0, len(data), step)
    methods = {
        (name, budget): method
        for budget in budgets
        for name, method in controls(network, budget, level).items()
    }
    counts = {key: Confusion(len(data.classes)) for key in methods}
    same, work = dict.fromkeys(methods, 0.0), dict.fromkeys(methods, 0.0)
    for index in tqdm(images, file=sys.stderr, desc=data.name):
        image, target = data[index]
        image = image[None].to(memory_format=torch.channels_last)
        wanted = dense(image).labels
        for key, method in methods.items():
            found = method(image)
            counts[key].add(found.labels, target[None])
            same[key] += float((found.labels == wanted).double().mean()) / len(images)
            work[key] += float(found.trace.work[0]) / len(images)
    return [
        {
            "model": model,
            "control": name,
            "budget": budget,
            "work": round(work[name, budget], 4),
            "miou": round(100 * counts[name, budget].miou, 2),
            "agreement": round(same[name, budget], 4),
            "images": len(images),
        }
        for name, budget in methods
    ]


def main() -> None:
    folder, out = "benchmarks/coarse_to_fine", Path(sys.argv[1])
    record = asdict(describe_machine()) | {
        "command": f"python {folder}/controls.py {folder}/{out.name}",
        "rows": [row for case in CASES for row in measure(*case)],
    }
    write_atomically(out, json.dumps(record, indent=1) + "\n")
    print(*record["rows"], sep="\n")


if __name__ == "__main__":
    main()
