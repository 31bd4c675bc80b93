"""Quality and cost of a method over a data set, dense first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import isnan
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from foveal.cost import Timing, alternate, count_macs
from foveal.data.dataset import Dataset
from foveal.evaluation.metrics import BoundaryScore, Confusion
from foveal.methods import AdaptiveSegmenter
from foveal.objectives.disagreement import disagreement
from foveal.ops import classify

Make = Callable[[Tensor], AdaptiveSegmenter]
"""Makes the method for an image's labels; only the oracle looks at them."""


@dataclass(frozen=True)
class Entry:
    """A row to measure: a name, the budget or risk that is asked for, and how to make the method."""

    method: str
    policy: str
    budget: float
    make: Make
    risk: float | None = None
    weights: Tensor | None = None
    """Weight of every class [K] in the disagreement with the dense network."""


@dataclass
class _Tally:
    confusion: Confusion
    boundary: BoundaryScore = field(default_factory=BoundaryScore)
    works: list[float] = field(default_factory=list)
    macs: list[int] = field(default_factory=list)
    agreement: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


def evaluate(
    network: nn.Module,
    data: Dataset,
    entries: list[Entry],
    timed: int = 16,
    limit: int | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Measure the dense network and every entry on the same images.

    Args:
        network: The dense network; evaluation mode.
        data: Labelled images.
        entries: Rows to measure.
        timed: Images that are timed, all rows alternating on each; 0 for none.
        limit: Use the first images only.
        report: Called with the images done and their total.

    Returns:
        Rows with the keys method, policy, budget, work, miou, iou, pixel_accuracy, boundary_f, agreement
        (with dense), macs, ms, images, with weights disagreement, and risk where one was asked for; the
        dense row first.
    """
    network.eval()
    count = min(len(data), limit or len(data))
    tallies = [_Tally(Confusion(len(data.classes))) for _ in range(len(entries) + 1)]
    turns = {index * count // timed for index in range(min(timed, count))} if timed else set()
    for index in range(count):
        image, target = data[index]
        image, target = image[None].to(memory_format=torch.channels_last), target[None]
        runs = [_dense(network, image), *(_adaptive(entry.make(target), image) for entry in entries)]
        _count(runs, target, tallies, [None, *(entry.weights for entry in entries)])
        if index in turns:
            names = [str(k) for k in range(len(runs))]
            times = alternate(dict(zip(names, (run for run in runs), strict=True)), repeat=3, warmup=1)
            for tally, name in zip(tallies, names, strict=True):
                tally.times.append(times[name].median)
        report(index + 1, count)
    heads = [("dense", "", 1.0), *((e.method, e.policy, e.budget) for e in entries)]
    rows = [_row(head, tally, data, count) for head, tally in zip(heads, tallies, strict=True)]
    for row, entry in zip(rows[1:], entries, strict=True):
        row |= {} if entry.risk is None else {"risk": entry.risk}
    return rows


Run = Callable[[], tuple[Tensor, float]]


def _dense(network: nn.Module, image: Tensor) -> Run:
    size = (image.shape[2], image.shape[3])
    return lambda: (classify(network(image), size), 1.0)


def _adaptive(method: AdaptiveSegmenter, image: Tensor) -> Run:
    def run() -> tuple[Tensor, float]:
        prediction = method.eval()(image)
        return prediction.labels, float(prediction.trace.work[0])

    return run


def _count(runs: list[Run], target: Tensor, tallies: list[_Tally], weights: list[Tensor | None]) -> None:
    reference: Tensor | None = None
    for run, tally, weight in zip(runs, tallies, weights, strict=True):
        found: list[tuple[Tensor, float]] = []
        tally.macs.append(count_macs(lambda run=run, found=found: found.append(run())).total)  # type: ignore[misc]
        labels, work = found[0]
        reference = labels if reference is None else reference
        tally.works.append(work)
        tally.confusion.add(labels, target)
        tally.boundary.add(labels, target)
        tally.agreement.append(float((labels == reference).double().mean()))
        if weight is not None:
            tally.losses.append(float(disagreement(labels, reference, weight)[0]))


def _row(head: tuple[str, str, float], tally: _Tally, data: Dataset, count: int) -> dict[str, Any]:
    method, policy, budget = head
    iou = {
        name: None if isnan(value) else round(value, 4)
        for name, value in zip(data.classes, tally.confusion.iou.tolist(), strict=True)
    }
    return {
        "method": method,
        "policy": policy,
        "budget": budget,
        "work": round(fmean(tally.works), 4),
        "work_max": round(max(tally.works), 4),
        "miou": round(tally.confusion.miou, 4),
        "iou": iou,
        "pixel_accuracy": round(tally.confusion.accuracy, 4),
        "boundary_f": round(tally.boundary.score, 4),
        "agreement": round(fmean(tally.agreement), 5),
        **({"disagreement": round(fmean(tally.losses), 5)} if tally.losses else {}),
        "macs": round(fmean(tally.macs)),
        "ms": round(Timing(tuple(tally.times)).median, 2) if tally.times else None,
        "images": count,
    }
