"""Quality and cost of methods over a data set, the dense network first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import isnan
from statistics import fmean, median

import torch
from torch import Tensor

from foveal.cost import MacsByPlan, alternate, count_macs
from foveal.data.dataset import Dataset
from foveal.evaluation.metrics import BoundaryScore, Confusion
from foveal.evaluation.rows import EvalRow
from foveal.geometry.mask import read_mask
from foveal.methods import AdaptiveSegmenter, Prediction, Step
from foveal.methods.config import SettingValue
from foveal.objectives.disagreement import disagreement, excess_error
from foveal.storage.labels import VOID

Run = Callable[[], Prediction]
ROUNDS = 3
"""Timed rounds on every image that is timed."""

Runs = dict[str, Callable[[], Tensor]]
Make = Callable[[Tensor], AdaptiveSegmenter]
"""Makes the method for an image's labels; only the oracle looks at them."""


@dataclass(frozen=True)
class Entry:
    """A row to measure: a name, the budget or risk that is asked for, and how to make the method.

    Attributes:
        method: Name of the method.
        policy: Name of what decides.
        budget: Work that is asked for, a share of the dense network's.
        make: Makes the method for an image's labels.
        risk: Disagreement with the dense network that is tolerated.
        weights: Weight of every class [K] in the disagreement with the dense network.
        tile: Side of the cells of a mask [px]; 0 for what computes whole images whatever is wanted.
        settings: Of the method by name; None for what has none.
        of_labels: Whether the risk is of the error beyond the dense network's, which is measured then.
    """

    method: str
    policy: str
    budget: float
    make: Make
    risk: float | None = None
    weights: Tensor | None = None
    tile: int = 0
    of_labels: bool = False
    settings: dict[str, SettingValue] | None = None


def evaluate(  # noqa: PLR0913
    dense: AdaptiveSegmenter,
    data: Dataset,
    entries: Sequence[Entry],
    timed: int = 16,
    limit: int | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
    wanted: Callable[[int], Tensor] | None = None,
) -> list[EvalRow]:
    """Measure the dense network and every entry on the same images.

    Args:
        dense: The dense network, as a method.
        data: Labelled images.
        entries: Rows to measure.
        timed: Images that are timed, all rows alternating on each; 0 for none.
        limit: Use the first images only.
        report: Called with the images done and their total.
        wanted: Returns the pixels of an image that count [H, W], bool; the others cost entries nothing.

    Returns:
        The dense row, then a row per entry.
    """
    count = min(len(data), limit or len(data))
    asked = [Entry("dense", "", 1.0, lambda target: dense), *entries]
    tallies = [_Tally(entry, len(data.classes)) for entry in asked]
    turns = {index * count // timed for index in range(min(timed, count))} if timed else set()
    for index in range(count):
        image, target = data[index]
        image, target = image[None].to(memory_format=torch.channels_last), target[None]
        mask = None if wanted is None else wanted(index)[None]
        target = target if mask is None else target.masked_fill(~mask, VOID)
        runs = [_run_of(entry, image, target, mask) for entry in asked]
        reference: Tensor | None = None
        for tally, run in zip(tallies, runs, strict=True):
            labels = tally.add(run, image, target, reference, mask)
            reference = labels if reference is None else reference
        if index in turns:
            timed_runs: Runs = {str(k): partial(_labels, run) for k, run in enumerate(runs)}
            times = alternate(timed_runs, ROUNDS, warmup=1)
            for number, tally in enumerate(tallies):
                tally.times.append(times[str(number)].median)
        report(index + 1, count)
    return [tally.row(data.classes) for tally in tallies]


@torch.no_grad()
def label(entry: Entry, image: Tensor, wanted: Tensor | None = None) -> Tensor:
    """Return what a row says about one image [C, H, W], labels [H, W]; void where it is not wanted."""
    batch = image[None].to(memory_format=torch.channels_last)
    mask = None if wanted is None else wanted[None]
    unknown = torch.full((1, *image.shape[1:]), VOID, dtype=torch.uint8)
    labels = _run_of(entry, batch, unknown, mask)().labels[0]
    return labels if wanted is None else labels.masked_fill(~wanted, VOID)


def _run_of(entry: Entry, image: Tensor, target: Tensor, wanted: Tensor | None) -> Run:
    """Return what segments an image [1, C, H, W], where its pixels [1, H, W] are wanted."""
    method = entry.make(target).eval()
    if wanted is None or not entry.tile:
        return partial(method, image)
    size = image.shape[2], image.shape[3]
    return partial(method.masked, image, read_mask(wanted, image, size, entry.tile, 0).cells)


def _labels(run: Run) -> Tensor:
    return run().labels


def _passes(prediction: Prediction) -> Sequence[Step]:
    return prediction.trace.steps


def _segment(run: Run) -> Prediction:
    """Segment an image up to the labels, which are kept with the prediction."""
    prediction = run()
    _ = prediction.labels
    return prediction


@dataclass
class _Tally:
    """Sums of one row over the images."""

    entry: Entry
    classes: int
    confusion: Confusion = field(init=False)
    boundary: BoundaryScore = field(default_factory=BoundaryScore)
    costs: MacsByPlan = field(default_factory=lambda: MacsByPlan(_passes))
    works: list[float] = field(default_factory=list)
    macs: list[int] = field(default_factory=list)
    agreement: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    excess: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.confusion = Confusion(self.classes)

    @torch.no_grad()
    def add(
        self, run: Run, image: Tensor, target: Tensor, reference: Tensor | None, wanted: Tensor | None
    ) -> Tensor:
        """Segment an image [1, C, H, W], count it, and return its labels [1, H, W].

        Args:
            run: What segments.
            image: The image.
            target: Its labels [1, H, W].
            reference: Labels of the dense network [1, H, W]; None for the dense network itself.
            wanted: Pixels that count [1, H, W]; None for all.
        """
        prediction, macs = self._counted(run, image, wanted is not None and self.entry.tile > 0)
        labels = prediction.labels
        reference = labels if reference is None else reference
        self.macs.append(macs)
        self.works.append(float(prediction.trace.work[0]))
        self.confusion.add(labels, target)
        self.boundary.add(labels, target)
        same = labels == reference
        counting = same if wanted is None else same[wanted]
        if counting.numel():
            self.agreement.append(float(counting.double().mean()))
        if self.entry.weights is not None and wanted is None:
            self.losses.append(float(disagreement(labels, reference, self.entry.weights)[0]))
            if self.entry.of_labels:
                self.excess.append(float(excess_error(labels, reference, target, self.entry.weights)[0]))
        return labels

    def _counted(self, run: Run, image: Tensor, masked: bool) -> tuple[Prediction, int]:
        """Run and count; what a mask leaves out is in no plan, so that is counted every time."""
        if not masked:
            found = self.costs.run(partial(_segment, run), image.shape)
            return found.value, found.macs
        answers: list[Prediction] = []
        macs = count_macs(lambda: answers.append(_segment(run))).total
        return answers[0], macs

    def row(self, classes: Sequence[str]) -> EvalRow:
        """Return the means over the images that were counted."""
        return EvalRow(
            method=self.entry.method,
            policy=self.entry.policy,
            budget=self.entry.budget,
            work=round(fmean(self.works), 4),
            work_max=round(max(self.works), 4),
            miou=_rounded(self.confusion.miou),
            iou=dict(zip(classes, map(_rounded, self.confusion.iou.tolist()), strict=True)),
            pixel_accuracy=_rounded(self.confusion.accuracy),
            boundary_f=_rounded(self.boundary.score),
            agreement=round(fmean(self.agreement), 5) if self.agreement else None,
            disagreement=round(fmean(self.losses), 5) if self.losses else None,
            excess_error=round(fmean(self.excess), 5) if self.excess else None,
            macs=round(fmean(self.macs)),
            ms=round(median(self.times), 2) if self.times else None,
            images=len(self.works),
            risk=self.entry.risk,
            settings=self.entry.settings,
        )


def _rounded(value: float) -> float | None:
    """Round a score; None for one that the labels do not define."""
    return None if isnan(value) else round(value, 4)
