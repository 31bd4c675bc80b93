"""Quality, cost and flicker of methods over the frames of one video, the dense network first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from statistics import fmean
from typing import Protocol

import torch
from torch import Tensor

from foveal.cost import alternate, count_macs
from foveal.evaluation.rows import EvalRow
from foveal.evaluation.tally import Entry, Tally, as_batch, completed, rounded, timed_turns, with_dense
from foveal.methods import AdaptiveSegmenter, Prediction
from foveal.storage.labels import VOID
from foveal.tiles.memory import Memory
from foveal.tiles.video import VideoMemory

TURNS = 2
"""Times that a frame is run to be timed, the first one to warm up."""


class Clip(Protocol):
    """Frames of one video in order, with labels."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""

    def __len__(self) -> int:
        """Count the frames."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return a frame [C, H, W] in 0..1 and its labels [H, W]."""


@dataclass(frozen=True, kw_only=True)
class VideoRow(EvalRow):
    """Quality and cost of one method over a video; means are over frames.

    Attributes:
        work_later: Mean work without that of the first frame.
        flicker: Share of the pixels that change their label from a frame to the next while the true label
            does not change, 0..1; None where there is no such pixel.
        memory_bytes: Largest memory between two frames [B].
    """

    work_later: float | None
    flicker: float | None
    memory_bytes: int


class Flicker:
    """Counts pixels that change their label while the truth does not."""

    def __init__(self) -> None:
        self.steady = self.changed = 0
        self._last: tuple[Tensor, Tensor] | None = None

    def add(self, labels: Tensor, target: Tensor) -> None:
        """Count a frame's labels and true labels [..., H, W] against those of the frame before."""
        if self._last is not None:
            before, truth = self._last
            same = (target == truth) & (target != VOID)
            self.steady += int(same.sum())
            self.changed += int((same & (labels != before)).sum())
        self._last = labels, target

    @property
    def share(self) -> float:
        """Share of the pixels; NaN if the truth is steady nowhere."""
        return self.changed / self.steady if self.steady else math.nan


def evaluate_video(
    dense: AdaptiveSegmenter,
    clip: Clip,
    entries: Sequence[Entry],
    timed: int = 0,
    limit: int | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[VideoRow]:
    """Measure the dense network and every entry on the same video, each with its own memory.

    Args:
        dense: The dense network, as a method.
        clip: Frames in order.
        entries: Rows to measure.
        timed: Frames that are timed, all rows in turns on each; 0 for none.
        limit: Use the first frames only.
        report: Called with the frames done and their total.

    Returns:
        The dense row, then a row per entry.
    """
    count = min(len(clip), limit or len(clip))
    tallies = [_Tally(entry, len(clip.classes)) for entry in with_dense(dense, entries)]
    turns = timed_turns(count, timed)
    for index in range(count):
        image, target = as_batch(clip[index])
        if index in turns:
            runs = {str(k): tally.run(image, target, TURNS) for k, tally in enumerate(tallies)}
            times = alternate(runs, TURNS - 1, warmup=1)
            for k, tally in enumerate(tallies):
                tally.times.append(times[str(k)].median)
        reference: Tensor | None = None
        for tally in tallies:
            labels = tally.add(image, target, reference)
            reference = labels if reference is None else reference
        report(index + 1, count)
    return [tally.row(clip.classes) for tally in tallies]


@dataclass
class _Tally(Tally):
    """Sums of one row, and the memory of its method."""

    flicker: Flicker = field(default_factory=Flicker)
    memory: Memory | None = None
    bytes: int = 0

    def run(self, image: Tensor, target: Tensor, times: int) -> Callable[[], Tensor]:
        """Return what segments a frame up to the labels, so many times; the memory stays as it is.

        Every time goes on from a copy, made before: a program spends the memory that it is given.
        """
        copies = [self.memory.copy() if isinstance(self.memory, VideoMemory) else None for _ in range(times)]
        method = self.entry.make(target).eval()
        return lambda: _labels(partial(method, image, copies.pop()))

    @torch.no_grad()
    def add(self, image: Tensor, target: Tensor, reference: Tensor | None) -> Tensor:
        """Segment the next frame, count it, and return its labels [1, H, W]."""
        run, answers = self._next(image, target), list[Prediction]()
        macs = count_macs(lambda: answers.append(completed(run))).total
        labels, self.memory = self.count(answers[0], macs, target, reference), answers[0].memory
        self.bytes = max(self.bytes, 0 if self.memory is None else self.memory.bytes)
        self.flicker.add(labels, target)
        return labels

    def row(self, classes: Sequence[str]) -> VideoRow:
        """Return the means over the frames that were counted."""
        found, later = super().row(classes), self.works[1:]
        return VideoRow(
            **{each.name: getattr(found, each.name) for each in fields(found)},
            work_later=round(fmean(later), 4) if later else None,
            flicker=rounded(self.flicker.share, 5),
            memory_bytes=self.bytes,
        )

    def _next(self, image: Tensor, target: Tensor) -> Callable[[], Prediction]:
        return partial(self.entry.make(target).eval(), image, self.memory)


@torch.no_grad()
def _labels(run: Callable[[], Prediction]) -> Tensor:
    return completed(run).labels
