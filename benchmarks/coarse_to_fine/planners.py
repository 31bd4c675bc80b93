"""Planners for tiles that gain more beside refined ones: four, on real networks and against all choices.

    python benchmarks/coarse_to_fine/planners.py OUT.json

The highest values whatever lies around them; the best squares of 2 x 2 tiles; values that are counted anew
beside the tiles that were chosen, eight times; and tiles that are taken away one by one, which is what
`foveal.geometry.compact` does. On grids of 4 x 4 the gain of the best of all sets is known. Everything on
images is executed, layer by layer: one direct step to full resolution; level by level, with the last step
compact, or every step; and patches of noise, for what a tile gains by the number of refined neighbours.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from foveal.benchmark.machine import describe_machine
from foveal.calibration.neighbours import Neighbourhood, noise
from foveal.data.dataset import open_dataset
from foveal.geometry import planner
from foveal.geometry.compact import compact_gain
from foveal.hub.checkpoint import load_model
from foveal.methods import CoarseToFine
from foveal.objectives.confusion import Confusion
from foveal.ops import choose_tiles
from foveal.policies.budgeted import per_cell
from foveal.policies.refinement import Forest, Refinement
from foveal.storage.atomic import write_atomically

ISOLATED, ROUNDS, GRIDS = 0.3, 8, 40
Pick = Callable[[Tensor, Tensor, float, int], Tensor]
CASES = (
    ("camvid_rn18", "camvid:data/camvid", 6, 1, (0.4, 0.55)),
    ("benchmarks/trained/cwfid_rn18_0.safetensors", "folder:data/fine/weeds_cwfid", 2, 2, (0.2, 0.3)),
)
"""Model, data, every how many images, level of the first pass, budgets."""
PATCHES = [(*case[:2], every, level) for case, every in zip(CASES, (12, 4), strict=True) for level in (1, 2)]


def highest(values: Tensor, is_open: Tensor, isolated: float, count: int) -> Tensor:
    """Choose the highest values."""
    order = values.masked_fill(~is_open, -1).flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(values.numel(), dtype=torch.bool)
    mask[order[:count]] = True
    return mask.view(values.shape) & is_open


def groups(values: Tensor, is_open: Tensor, isolated: float, count: int) -> Tensor:
    """Choose squares of 2 x 2 tiles by their means, and the highest values of the last one."""
    rows, columns = values.shape
    open_values = values.masked_fill(~is_open, 0)
    means = F.avg_pool2d(F.pad(open_values[None, None], (0, columns % 2, 0, rows % 2)), 2)[0, 0]
    spread = planner.spread(means, 2, values)
    return highest(spread + 1e-6 * open_values, is_open, isolated, count)


def iterated(values: Tensor, is_open: Tensor, isolated: float, count: int) -> Tensor:
    """Choose the highest values, count the gains anew beside what was chosen, and so on."""
    around = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    around[..., 1, 1] = 0
    value = values.masked_fill(~is_open, 0).double()
    known = F.conv2d(torch.ones_like(value)[None, None], around, padding=1)[0, 0].clamp(min=1)
    rank = value
    for _ in range(ROUNDS):
        chosen = highest(rank, is_open, isolated, count).double()
        near = F.conv2d(chosen[None, None], around, padding=1)[0, 0] / known
        given = F.conv2d((chosen * value / known)[None, None], around, padding=1)[0, 0]
        rank = (rank + value * (isolated + (1 - isolated) * near) + (1 - isolated) * given) / 2
    return highest(rank, is_open, isolated, count)


PLANNERS: dict[str, Pick] = {
    "highest values": highest,
    "squares of 2 x 2": groups,
    "counted anew": iterated,
    "taken away": choose_tiles,
}


@dataclass(frozen=True)
class Picking(Refinement):
    """Refines the tiles that a planner picks, as many as the budget pays for."""

    pick: Pick = highest

    def choose(self, forests: list[Forest], left: list[float]) -> list[Tensor]:
        """Pick among the tiles of the last step."""
        return [
            self.pick(gains[0].clamp(min=0), costs[0] > 0, ISOLATED, int(paid))
            for (gains, costs), paid in zip(forests, left, strict=True)
        ]


@dataclass(frozen=True)
class EveryStep(Refinement):
    """Chooses compactly in every step, where the method does so in the last one alone."""

    def choose(self, forests: list[Forest], left: list[float]) -> list[Tensor]:
        """Choose as many tiles as without, and the compact ones of them."""
        counts = [int(mask.sum()) for mask in Refinement(self.score, self.level_gain).choose(forests, left)]
        rates = [planner.rates(*forest)[0] for forest in forests]
        is_open = [costs[0] > 0 for _, costs in forests]
        return [
            choose_tiles(rate, able, self.isolated_gain, count)
            for rate, able, count in zip(rates, is_open, counts, strict=True)
        ]


STEPS: dict[str, Refinement] = {
    "no step": Refinement(),
    "the last step": Refinement(isolated_gain=ISOLATED),
    "every step": EveryStep(isolated_gain=ISOLATED),
}


def against_all() -> dict[str, dict[str, float]]:
    """Compare with the best of all choices of 3, 5 and 7 tiles on small grids, and time large ones."""
    gained, most, times = dict.fromkeys(PLANNERS, 0.0), 0.0, {}
    for seed in range(GRIDS):
        draw = torch.Generator().manual_seed(seed)
        values = torch.rand(4, 4, generator=draw, dtype=torch.float64) ** 3
        for count in (3, 5, 7):
            sets = (torch.tensor(s) for s in combinations(range(16), count))
            masks = (torch.zeros(16, dtype=torch.bool).index_fill(0, s, True).view(4, 4) for s in sets)
            most += max(compact_gain(values, mask, ISOLATED) for mask in masks)
            for name, pick in PLANNERS.items():
                gained[name] += compact_gain(values, pick(values, values >= 0, ISOLATED, count), ISOLATED)
    large = torch.rand(100, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 3
    for name, pick in PLANNERS.items():
        start = perf_counter()
        pick(large, large >= 0, ISOLATED, 2500)
        times[name] = round(1000 * (perf_counter() - start), 2)
    return {
        name: {"share_of_best": round(gained[name] / most, 4), "ms_10000": times[name]} for name in PLANNERS
    }


@torch.inference_mode()
def on_images(
    model: str, spec: str, step: int, level: int, budgets: tuple[float, ...], how: dict[str, Refinement]
) -> list[dict[str, object]]:
    """Run coarse to fine in several ways on every `step`-th image of the test split."""
    network, data = load_model(model).network.eval(), open_dataset(spec, "test")
    keys = [(name, budget) for budget in budgets for name in how]
    counts = {key: Confusion(len(data.classes)) for key in keys}
    same, images = dict.fromkeys(keys, 0.0), range(0, len(data), step)
    for index in tqdm(images, file=sys.stderr, desc=data.name):
        image, target = data[index]
        image = image[None].to(memory_format=torch.channels_last)
        dense = CoarseToFine(network, 1.0, 32, level).eval()(image).labels
        for name, budget in keys:
            labels = CoarseToFine(network, budget, 32, level, how[name]).eval()(image).labels
            counts[name, budget].add(labels, target[None])
            same[name, budget] += float((labels == dense).double().mean()) / len(images)
    return [
        {
            "model": model,
            "planner": name,
            "budget": budget,
            "miou": round(100 * counts[name, budget].miou, 2),
            "agreement": round(same[name, budget], 4),
            "images": len(images),
        }
        for name, budget in keys
    ]


@torch.inference_mode()
def by_neighbours(model: str, spec: str, step: int, level: int) -> dict[str, object]:
    """Say what share of its disagreement with dense a refined tile loses, by its refined neighbours."""
    network, data = load_model(model).network.eval(), open_dataset(spec, "test")
    had, lost, around = torch.zeros(9), torch.zeros(9), torch.ones(1, 1, 3, 3)
    around[..., 1, 1] = 0
    found = Neighbourhood()
    for index in tqdm(range(0, len(data), step), file=sys.stderr, desc=f"{data.name}, neighbours"):
        image = data[index][0][None].to(memory_format=torch.channels_last)
        size = image.shape[2], image.shape[3]
        dense = CoarseToFine(network, 1.0, 32, level).eval()(image).labels
        for seed, share in enumerate((0.1, 0.3, 0.5, 0.7)):
            how = Refinement(noise(index + seed), (1.0,), schedule="direct")
            method = CoarseToFine(network, 0.25**level * 1.15 + share, 32, level, how).eval()
            first, last = method.stream(image)
            before, after = (per_cell((x.labels != dense).float(), size, 32)[0] for x in (first, last))
            levels = last.trace.levels
            assert levels is not None
            refined = levels[0] == 0
            found.add(before.double(), after.double(), refined)
            near, known = (
                F.conv2d(x[None, None], around, padding=1)[0, 0]
                for x in (refined.float(), torch.ones_like(before))
            )
            bins = (8 * near / known).round().long()[refined]
            had.index_add_(0, bins, before[refined])
            lost.index_add_(0, bins, (before - after)[refined])
    shares = [round(float(share), 3) for share in lost / had.clamp(min=1e-9)]
    return {"model": model, "level": level, "share_lost": shares, "isolated_gain": found.isolated_gain}


def main() -> None:
    folder, out = "benchmarks/coarse_to_fine", Path(sys.argv[1])
    direct = {name: Picking(schedule="direct", pick=pick) for name, pick in PLANNERS.items()}
    record = asdict(describe_machine()) | {
        "command": f"python {folder}/planners.py {folder}/{out.name}",
        "isolated_gain": ISOLATED,
        "planners": against_all(),
        "rows": [row for case in CASES for row in on_images(*case, direct)],
        "by_level": [
            row
            for model, spec, step, _, budgets in CASES
            for row in on_images(model, spec, step, 2, budgets, STEPS)
        ],
        "neighbours": [by_neighbours(*case) for case in PATCHES],
    }
    write_atomically(out, json.dumps(record, indent=1) + "\n")
    for row in (*record["rows"], *record["by_level"], *record["neighbours"]):
        print(row)


if __name__ == "__main__":
    main()
