"""How well risks are kept: per-image losses of executed runs, then bounds and splits by arithmetic.

python benchmarks/coarse_to_fine/risk.py benchmarks/coarse_to_fine/risk.json

Settings, class weights and thresholds come from other images (`Case.settings`) than those that are split into
calibration and test. What dense is mixed with is chosen by a quarter of the calibration images of a split, as
`foveal adapt` does it, or, in the rows that say so, by the images that chose the settings. What was measured
on every image is kept in `risk_losses.json` beside the result; delete it to measure again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foveal.benchmark.machine import describe_machine
from foveal.calibration.adapt import adapt
from foveal.calibration.engine import find_engine
from foveal.calibration.risk.bounds import BOUNDS, CONFORMAL, Bound
from foveal.calibration.risk.coverage import Coverage, Split, coverage, group_splits, random_splits, set_apart
from foveal.calibration.risk.drawn import draw_number
from foveal.calibration.risk.measure import ImageLoss, Runs
from foveal.calibration.risk.table import choose_mixed, find_setting
from foveal.data.dataset import open_dataset
from foveal.data.image_files import columns
from foveal.hub.checkpoint import load_model
from foveal.methods import CoarseToFineConfig
from foveal.ops import classify
from foveal.storage.atomic import write_atomically

RISKS = (0.005, 0.01, 0.02, 0.05)
SPLITS = 100
STRETCH = 20
"""Consecutive frames of a drive that stay together in a split by stretch."""
TRIED = ("weighted_entropy", "regional_entropy")


@dataclass(frozen=True)
class Case:
    """A network, the images that choose its settings (so many, evenly spaced), and those that are split."""

    name: str
    model: str
    settings: tuple[str, str]
    data: tuple[str, str]
    limit: int = 101
    has_drives: bool = False


CASES = (
    Case(
        "CamVid test",
        "camvid_rn18",
        ("camvid:data/camvid", "val"),
        ("camvid:data/camvid", "test"),
        has_drives=True,
    ),
    Case(
        "weeds_cwfid test",
        "benchmarks/trained/cwfid_rn18_0.safetensors",
        ("folder:data/fine/weeds_cwfid", "train"),
        ("folder:data/fine/weeds_cwfid", "test"),
        limit=8,
    ),
)


@dataclass(frozen=True)
class BothLosses(ImageLoss):
    """Disagreement with dense; the error beyond dense is noted beside it."""

    beyond: dict[int, list[float]] = field(default_factory=dict)

    def __call__(self, answer: Tensor, index: int) -> float:
        noted = self.beyond.setdefault(index, [0.0])
        noted.append(ImageLoss(self.dense, self.weights, self.labels)(answer, index))
        return ImageLoss(self.dense, self.weights)(answer, index)


def progress(name: str, done: int, total: int) -> None:
    if done in (1, total) or done % 25 == 0:
        print(f"{name}: {done} of {total}", file=sys.stderr, flush=True)


def measure(case: Case) -> dict[str, Any]:
    """Adapt to the images that choose settings, then run these and the others at every threshold."""
    model = load_model(case.model)
    engine = find_engine(model)
    level = max(1, model.card.coarse_level)
    candidates = [
        CoarseToFineConfig(policy=score, tile=model.card.tile, coarse_level=at)
        for at in range(level, 0, -1)
        for score in TRIED
    ]
    images, _ = columns(open_dataset(*case.settings), case.limit)
    profile = adapt(model, images, candidates, progress, engine)
    weights = torch.tensor(profile.class_weights, dtype=torch.float64)
    found: dict[str, Any] = {
        "measured": asdict(describe_machine()),
        "settings": asdict(profile.config),
        "thresholds": profile.risk.thresholds,
        "salt": profile.weights,
    }
    for part, (source, split) in (("chosen", case.settings), ("data", case.data)):
        data = open_dataset(source, split)
        images, labels = columns(data, case.limit if part == "chosen" else len(data))

        def image(index: int, images: Any = images) -> Tensor:
            return engine.sent(images[index][None]).contiguous(memory_format=torch.channels_last)

        with torch.inference_mode():
            network = engine.dense().dense()
            dense = [classify(network(image(k)), images[k].shape[1:])[0].clone() for k in range(len(images))]
        loss = BothLosses(dense, weights, labels)
        runs = Runs(engine, profile.config, profile.risk.thresholds[1:], image, loss, progress)
        measured = runs.measure(range(len(images)), f"{case.name}, {split}")
        found[part] = {
            "names": [data.name_of(k) for k in images.indices],
            "numbers": [round(draw_number(images[k], profile.weights), 6) for k in range(len(images))],
            "dense": rounded(measured.losses),
            "labels": rounded(torch.tensor([loss.beyond[k] for k in range(len(images))])),
            "works": rounded(measured.works),
        }
    return found


def rounded(table: Tensor) -> list[list[float]]:
    return [[round(x, 5) for x in row] for row in table.tolist()]


def splits_of(case: Case, names: list[str]) -> Iterator[tuple[str, list[Split]]]:
    """Yield the kinds of splits, each with its splits."""
    yield "random", random_splits(len(names), SPLITS)
    if not case.has_drives:
        return
    drives = [name.split("_")[0] for name in names]
    places = {drive: iter(range(len(names))) for drive in set(drives)}
    stretches = [f"{drive} {next(places[drive]) // STRETCH}" for drive in drives]
    yield "by stretch", group_splits(stretches, SPLITS)
    yield "by drive", group_splits(drives, SPLITS)
    both = group_splits(drives, 2 * SPLITS)
    for drive in sorted(set(drives)):
        one_way = [split for split in both if drives[int(split[0][0])] == drive]
        yield f"from {drive}", one_way


def rows_of(case: Case, found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a row for every risk, loss, kind of split and bound."""
    data, numbers = found["data"], torch.tensor(found["data"]["numbers"])
    chosen_works, works = (table(found[part]["works"]) for part in ("chosen", "data"))
    for risk_of in ("dense", "labels"):
        chosen, losses = (table(found[part][risk_of]) for part in ("chosen", "data"))
        for kind, splits in splits_of(case, data["names"]):
            head = {"data": case.name, "model": Path(case.model).stem, "risk_of": risk_of, "split": kind}
            fewer, mixed = set_apart(splits, losses, works)
            elsewhere = [choose_mixed(chosen, chosen_works, len(first)) for first, _ in splits]
            compared = risk_of == "dense" and kind in ("random", "by drive")
            for alpha in RISKS:
                if min(len(first) for first, _ in splits) >= 1 / alpha - 1:
                    yield head | {"mixed": "no"} | short(coverage(losses, works, alpha, splits))
                for bound in KNOWN if compared else KNOWN[:1]:
                    row = coverage(losses, works, alpha, fewer, mixed, bound)
                    drawn = realised((losses, works, numbers), alpha, fewer, mixed, bound)
                    yield head | {"mixed": "chosen by a quarter"} | short(row) | drawn
                row = coverage(losses, works, alpha, splits, elsewhere, KNOWN[0])
                yield head | {"mixed": f"chosen on {case.settings[1]}"} | short(row)


def remembered(bound: Bound) -> Bound:
    """Return a bound that computes what it was asked before only once: it is the same for every risk."""
    known: dict[bytes, float] = {}

    def of(losses: Tensor) -> float:
        key = losses.contiguous().numpy().tobytes()
        if key not in known:
            known[key] = bound.of(losses)
        return known[key]

    return Bound(bound.name, bound.promise, of)


KNOWN = tuple(remembered(bound) for bound in (CONFORMAL, *(b for b in BOUNDS if b is not CONFORMAL)))


def realised(
    images: tuple[Tensor, Tensor, Tensor], alpha: float, splits: list[Split], mixed: list[int], bound: Bound
) -> dict[str, float]:
    """Return the mean risk and work with every image as its hash has it, instead of the mean over hashes."""
    losses, works, numbers = images
    risks, spent = [], []
    for (chosen, rest), one in zip(splits, mixed, strict=True):
        index, share, _ = find_setting(losses[chosen], works[chosen].mean(0), alpha, one, bound)
        adapted = (numbers[rest] < share).double()
        risks.append(float((adapted * losses[rest, index]).mean()))
        spent.append(float((1 - adapted * (1 - works[rest, index])).mean()))
    return {
        "drawn_risk": round(sum(risks) / len(risks), 6),
        "drawn_work": round(sum(spent) / len(spent), 4),
    }


def short(row: Coverage) -> dict[str, Any]:
    return {key: round(x, 6) if isinstance(x, float) else x for key, x in asdict(row).items()}


def table(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def means_of(case: Case, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return mean work and losses at every threshold."""
    data = found["data"]
    columns = (table(data[key]).mean(0).tolist() for key in ("works", "dense", "labels"))
    return [
        {
            "data": case.name,
            "threshold": t,
            "work": round(w, 4),
            "disagreement": round(x, 5),
            "error_beyond_dense": round(y, 5),
        }
        for t, w, x, y in zip(found["thresholds"], *columns, strict=True)
    ]


def main() -> None:
    out = Path(sys.argv[1])
    cache = out.with_name("risk_losses.json")
    kept = json.loads(cache.read_text()) if cache.exists() else asdict(describe_machine()) | {"cases": {}}
    for case in CASES:
        if case.name not in kept["cases"]:
            kept["cases"][case.name] = measure(case)
            write_atomically(cache, json.dumps(kept) + "\n")
    cases = [(case, kept["cases"][case.name]) for case in CASES]
    record = asdict(describe_machine()) | {
        "settings": {case.name: found["settings"] for case, found in cases},
        "rows": [row for case, found in cases for row in rows_of(case, found)],
        "mean": [row for case, found in cases for row in means_of(case, found)],
    }
    write_atomically(out, json.dumps(record, indent=1) + "\n")
    print(f"wrote {out}: {len(record['rows'])} rows", file=sys.stderr)


if __name__ == "__main__":
    main()
