"""What several passes cost: coarse to fine beside one pass over a plan of equal work, in turns.

python benchmarks/passes.py benchmarks/trained/cwfid_rn18_0.safetensors folder:data/fine/weeds_cwfid
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial

import numpy as np

import foveal
from foveal.benchmark.machine import describe_machine
from foveal.cost import alternate
from foveal.program import CoarseToFineRun, PlannedRun, Program, SegBlocksRun
from foveal.program.quantise import find_scales, in_bf16, in_int8

BUDGETS, IMAGES, ROUNDS = (0.2, 0.3, 0.4), 3, 7


def one_shot(program: Program, image: np.ndarray, tile: int, work: float) -> PlannedRun:
    """Find a plan of three levels whose one pass takes as much work as all passes of another run."""
    best = None
    for budget in np.arange(work, min(1.0, work + 0.2), 0.02):
        settings = SegBlocksRun(float(budget), "entropy", tile, 2, 2)
        levels = program.run(image, settings).levels
        plan = PlannedRun(levels, tile=tile)
        gap = abs(float(program.run(image, plan).work[0]) - work)
        best = min(best or (gap, levels), (gap, levels), key=lambda pair: pair[0])
    assert best is not None
    return PlannedRun(best[1], tile=tile)


def rows(
    program: Program, precision: str, images: list[np.ndarray], tile: int
) -> Iterator[dict[str, object]]:
    """Time both, and the dense network, on every image."""
    for budget in BUDGETS:
        times: dict[str, list[float]] = {"dense": [], "passes": [], "one_shot": []}
        work = {"passes": 0.0, "one_shot": 0.0}
        for image in images:
            settings = CoarseToFineRun(budget, tile=tile, coarse_level=2)
            spent = float(program.run(image, settings).work[0])
            plan = one_shot(program, image, tile, spent)
            work["passes"] += spent / len(images)
            work["one_shot"] += float(program.run(image, plan).work[0]) / len(images)
            runs = {"dense": None, "passes": settings, "one_shot": plan}
            found = alternate({k: partial(program.run, image, s) for k, s in runs.items()}, ROUNDS)
            for name, timing in found.items():
                times[name].append(timing.median)
        mean = {name: float(np.mean(values)) for name, values in times.items()}
        per_work = {name: mean[name] / work[name] for name in work}
        yield {
            "precision": precision,
            "budget": budget,
            "work": {name: round(value, 4) for name, value in work.items()},
            "ms": {name: round(value, 1) for name, value in mean.items()},
            "passes_over_one_shot": round(per_work["passes"] / per_work["one_shot"], 3),
            "over_share_of_dense": round(mean["passes"] / (work["passes"] * mean["dense"]), 3),
        }


def main() -> None:
    """Run from the command line."""
    name, data = sys.argv[1:]
    model, dataset = foveal.load_model(name), foveal.open_dataset(data, "test")
    images = [dataset[k * len(dataset) // IMAGES][0][None].numpy() for k in range(IMAGES)]
    single = foveal.compile_network(model.network.eval())
    programs = {"f32": single, "bf16": in_bf16(single), "int8": in_int8(single, find_scales(single, images))}
    found = [row for p, program in programs.items() for row in rows(program, p, images, model.card.tile)]
    command = f"python benchmarks/passes.py {name} {data}"
    print(json.dumps(asdict(describe_machine()) | {"command": command, "rows": found}, indent=1))


if __name__ == "__main__":
    main()
