"""Area under mIoU over work of what is chosen on other images, beside shrinking the whole image.

    python benchmarks/coarse_to_fine/areas.py OUT.json MODEL --data KIND:PATH --split test [--choose val]
    python benchmarks/coarse_to_fine/areas.py OUT.json module:function --weights FILE --data KIND:PATH

Every setting of `foveal tune` runs on every image, and one confusion matrix is kept per image; choosing is
then arithmetic. Settings are chosen on `--choose`, or, where there are no other labelled images, on one half
of the split for the other half and the other way round. Shrinking is shown twice: to the budget itself, and
with its scale chosen on the same images and with the same care.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from foveal.adaptive.opening import Reference, open_model
from foveal.benchmark.machine import describe_machine
from foveal.calibration.candidates import Candidate, Space, list_candidates
from foveal.calibration.engine import Engine, find_engine
from foveal.cli.evaluate import open_labelled
from foveal.data.dataset import Dataset
from foveal.hub.checkpoint import Model
from foveal.objectives.confusion import Confusion
from foveal.storage.atomic import write_atomically

BUDGETS = (0.1, 0.2, 0.3, 0.45, 0.6)
SCALES = (1.0, 0.75, 0.55)
SLACK = 0.01
"""A budget is kept to one tile above it; of the images here a tile is at most so much."""


@dataclass
class Measured:
    """A setting on some images.

    Attributes:
        candidate: The setting.
        counts: Confusion matrices [images, K, K].
        works: Share of the dense work [images].
    """

    candidate: Candidate
    counts: Tensor
    works: Tensor

    def miou(self, chosen: Tensor) -> float:
        """Return the mean IoU over some of the images [images], bool."""
        return mean_iou(self.counts[chosen].sum(0))


def mean_iou(counts: Tensor) -> float:
    """Return the mean IoU over the classes that occur in the labels, rows of the matrix [K, K]."""
    found = Confusion(len(counts))
    found.counts += counts
    return 100 * found.miou


@torch.inference_mode()
def measure(engine: Engine, data: Dataset, candidates: Sequence[Candidate]) -> list[Measured]:
    """Run every setting on every image."""
    methods = [engine.make(c.method, c.config) for c in candidates]
    counts = [[] for _ in methods]
    works = [[] for _ in methods]
    for index in tqdm(range(len(data)), file=sys.stderr, desc=data.name):
        image, target = data[index]
        batch = image[None].to(memory_format=torch.channels_last)
        for k, method in enumerate(methods):
            found = method(batch)
            matrix = Confusion(len(data.classes))
            matrix.add(found.labels.cpu(), target[None])
            counts[k].append(matrix.counts)
            works[k].append(float(found.trace.work[0]))
    pairs = zip(candidates, counts, works, strict=True)
    return [Measured(c, torch.stack(m), torch.tensor(w)) for c, m, w in pairs]


def best(found: Sequence[Measured], budget: float, images: Tensor) -> int:
    """Return the setting of the highest mIoU within a budget on some images."""
    able = [k for k, row in enumerate(found) if float(row.works[images].mean()) <= budget + SLACK]
    return max(able, key=lambda k: (found[k].miou(images), -float(found[k].works.mean())))


def area(values: Sequence[float]) -> float:
    """Return the mean height of a curve over the budgets."""
    points = zip(BUDGETS, BUDGETS[1:], values, values[1:], strict=False)
    return sum((b - a) * (low + high) / 2 for a, b, low, high in points) / (BUDGETS[-1] - BUDGETS[0])


def alone(found: Sequence[Measured]) -> list[int]:
    """List the settings that are the whole image shrunk, and nothing else."""
    return [k for k, row in enumerate(found) if row.candidate.shrinks_alone]


def curves(
    found: Sequence[Measured], tested: Sequence[Measured], folds: list[tuple[Tensor, Tensor]]
) -> list[dict]:
    """Choose on the first images of every fold, and count on the second; a row a budget."""
    rows, shrunk = [], alone(found)
    for budget in BUDGETS:
        row: dict[str, object] = {"budget": budget}
        exact = min(shrunk, key=lambda k: abs(found[k].candidate.config.scale ** 2 - budget))
        for name, able in (("ours", range(len(found))), ("shrunk", shrunk), ("shrunk_to_budget", [exact])):
            counts, works, titles = 0, [], []
            for chosen_on, counted_on in folds:
                k = list(able)[best([found[k] for k in able], budget, chosen_on)] if len(able) > 1 else exact
                counts = counts + tested[k].counts[counted_on].sum(0)
                works += tested[k].works[counted_on].tolist()
                titles.append(found[k].candidate.title)
            row |= {name: round(mean_iou(counts), 2), f"{name}_work": round(sum(works) / len(works), 4)}
            row[f"{name}_setting"] = list(dict.fromkeys(titles))
        rows.append(row)
    return rows


def opened(model: Model, name: str, split: str, first: int) -> Dataset:
    """Open labelled images whose classes are the model's."""
    data = open_labelled(model, name, split)
    return replace(data, pairs=data.pairs[:first]) if first else data


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("model")
    parser.add_argument("--weights", type=Path, help="of module:function")
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--choose", default="")
    parser.add_argument("--first", type=int, default=0, help="look at so many images alone")
    given = parser.parse_args()
    model = open_model(Reference(given.model, given.weights))
    engine, data = find_engine(model), opened(model, given.data, given.split, given.first)
    sizes = list({tuple(data[k][0].shape[1:]) for k in range(len(data))})
    candidates = list_candidates([engine], sizes, Space(BUDGETS, SCALES))
    if given.choose:
        others = opened(model, given.data, given.choose, given.first)
        found = measure(engine, others, candidates)
        able = {best(found, budget, torch.ones(len(others), dtype=torch.bool)) for budget in BUDGETS}
        kept = sorted(able | set(alone(found)))
        found = [found[k] for k in kept]
        tested = measure(engine, data, [row.candidate for row in found])
        folds = [(torch.ones(len(others), dtype=torch.bool), torch.ones(len(data), dtype=torch.bool))]
    else:
        found = tested = measure(engine, data, candidates)
        even = torch.arange(len(data)) % 2 == 0
        folds = [(even, ~even), (~even, even)]
    rows = curves(found, tested, folds)
    whole = next(row for row in tested if row.candidate.shrinks_alone and row.candidate.config.scale == 1)
    areas = {
        name: round(area([row[name] for row in rows]), 2) for name in ("ours", "shrunk", "shrunk_to_budget")
    }
    place = f"benchmarks/coarse_to_fine/{given.out.name}"
    record = asdict(describe_machine()) | {
        "command": " ".join(["python benchmarks/coarse_to_fine/areas.py", place, *sys.argv[2:]]),
        "model": given.model,
        "data": data.name,
        "images": len(data),
        "chosen_on": given.choose or "the other half",
        "settings": len(candidates),
        "engine": str(engine),
        "dense": round(whole.miou(torch.ones(len(data), dtype=torch.bool)), 2),
        "areas": areas,
        "rows": rows,
    }
    write_atomically(given.out, json.dumps(record, indent=1) + "\n")
    print(json.dumps(areas), "dense", record["dense"])


if __name__ == "__main__":
    main()
