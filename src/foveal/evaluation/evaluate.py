"""Quality and cost of methods over a data set, the dense network first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import fmean

import torch
from torch import Tensor

from foveal.cost import MacsByPlan, alternate, count_macs
from foveal.data.dataset import Dataset
from foveal.evaluation.rows import EvalRow
from foveal.evaluation.tally import Entry, Tally, as_batch, completed, timed_turns, with_dense
from foveal.geometry.mask import read_mask
from foveal.methods import AdaptiveSegmenter, Prediction, Step
from foveal.objectives.disagreement import disagreement, excess_error
from foveal.storage.labels import VOID

Run = Callable[[], Prediction]
ROUNDS = 3
"""Timed rounds on every image that is timed."""

Runs = dict[str, Callable[[], Tensor]]


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
    asked, turns = with_dense(dense, entries), timed_turns(count, timed)
    tallies = [_Tally(entry, len(data.classes)) for entry in asked]
    for index in range(count):
        image, target = as_batch(data[index])
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


@dataclass
class _Tally(Tally):
    """Sums of one row, with what a risk is about."""

    costs: MacsByPlan = field(default_factory=lambda: MacsByPlan(_passes))
    losses: list[float] = field(default_factory=list)
    excess: list[float] = field(default_factory=list)

    @torch.no_grad()
    def add(
        self, run: Run, image: Tensor, target: Tensor, reference: Tensor | None, wanted: Tensor | None
    ) -> Tensor:
        """Segment an image [1, C, H, W], count it, and return its labels; as of `count`."""
        prediction, macs = self._counted(run, image, wanted is not None and self.entry.tile > 0)
        labels = self.count(prediction, macs, target, reference, wanted)
        reference = labels if reference is None else reference
        if self.entry.weights is not None and wanted is None:
            self.losses.append(float(disagreement(labels, reference, self.entry.weights)[0]))
            if self.entry.of_labels:
                self.excess.append(float(excess_error(labels, reference, target, self.entry.weights)[0]))
        return labels

    def _counted(self, run: Run, image: Tensor, masked: bool) -> tuple[Prediction, int]:
        """Run and count; what a mask leaves out is in no plan, so that is counted every time."""
        if not masked:
            found = self.costs.run(partial(completed, run), image.shape)
            return found.value, found.macs
        answers: list[Prediction] = []
        macs = count_macs(lambda: answers.append(completed(run))).total
        return answers[0], macs

    def row(self, classes: Sequence[str]) -> EvalRow:
        """Return the means over the images that were counted."""
        return replace(
            super().row(classes),
            disagreement=round(fmean(self.losses), 5) if self.losses else None,
            excess_error=round(fmean(self.excess), 5) if self.excess else None,
        )
