"""Quality, cost and flicker of methods over the frames of one video, the dense network first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean, median
from typing import Protocol

import torch
from torch import Tensor

from foveal.cost import alternate, count_macs
from foveal.evaluation.evaluate import Entry
from foveal.evaluation.metrics import BoundaryScore, Confusion
from foveal.evaluation.rows import EvalRow
from foveal.methods import AdaptiveSegmenter, Prediction
from foveal.storage.labels import VOID
from foveal.tiles.memory import Memory


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
    asked = [Entry("dense", "", 1.0, lambda target: dense), *entries]
    tallies = [_Tally(entry, len(clip.classes)) for entry in asked]
    turns = {index * count // timed for index in range(min(timed, count))} if timed else set()
    for index in range(count):
        image, target = clip[index]
        image, target = image[None].to(memory_format=torch.channels_last), target[None]
        if index in turns:
            runs = {str(k): tally.run(image, target) for k, tally in enumerate(tallies)}
            times = alternate(runs, 1, warmup=1)
            for k, tally in enumerate(tallies):
                tally.times.append(times[str(k)].median)
        reference: Tensor | None = None
        for tally in tallies:
            labels = tally.add(image, target, reference)
            reference = labels if reference is None else reference
        report(index + 1, count)
    return [tally.row(clip.classes) for tally in tallies]


@dataclass
class _Tally:
    """Sums of one row over the frames, and the memory of its method."""

    entry: Entry
    classes: int
    confusion: Confusion = field(init=False)
    boundary: BoundaryScore = field(default_factory=BoundaryScore)
    flicker: Flicker = field(default_factory=Flicker)
    works: list[float] = field(default_factory=list)
    macs: list[int] = field(default_factory=list)
    agreement: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    memory: Memory | None = None
    bytes: int = 0

    def __post_init__(self) -> None:
        self.confusion = Confusion(self.classes)

    def run(self, image: Tensor, target: Tensor) -> Callable[[], Tensor]:
        """Return what segments a frame up to the labels; the memory stays as it is."""
        return partial(_labels, self.entry.make(target).eval(), image, self.memory)

    @torch.no_grad()
    def add(self, image: Tensor, target: Tensor, reference: Tensor | None) -> Tensor:
        """Segment the next frame, count it, and return its labels [1, H, W]."""
        method, answers = self.entry.make(target).eval(), list[Prediction]()
        self.macs.append(count_macs(lambda: answers.append(_segment(method, image, self.memory))).total)
        prediction = answers[0]
        labels, self.memory = prediction.labels, prediction.memory
        self.bytes = max(self.bytes, 0 if self.memory is None else self.memory.bytes)
        self.works.append(float(prediction.trace.work[0]))
        self.confusion.add(labels, target)
        self.boundary.add(labels, target)
        self.flicker.add(labels, target)
        self.agreement.append(float((labels == (labels if reference is None else reference)).double().mean()))
        return labels

    def row(self, classes: Sequence[str]) -> VideoRow:
        """Return the means over the frames that were counted."""
        later = self.works[1:]
        return VideoRow(
            method=self.entry.method,
            policy=self.entry.policy,
            budget=self.entry.budget,
            work=round(fmean(self.works), 4),
            work_max=round(max(self.works), 4),
            work_later=round(fmean(later), 4) if later else None,
            miou=_rounded(self.confusion.miou),
            iou=dict(zip(classes, map(_rounded, self.confusion.iou.tolist()), strict=True)),
            pixel_accuracy=_rounded(self.confusion.accuracy),
            boundary_f=_rounded(self.boundary.score),
            flicker=_rounded(self.flicker.share, 5),
            agreement=round(fmean(self.agreement), 5),
            macs=round(fmean(self.macs)),
            ms=round(median(self.times), 2) if self.times else None,
            images=len(self.works),
            memory_bytes=self.bytes,
        )


def _segment(method: AdaptiveSegmenter, image: Tensor, memory: Memory | None) -> Prediction:
    prediction: Prediction = method(image, memory)
    _ = prediction.labels
    return prediction


@torch.no_grad()
def _labels(method: AdaptiveSegmenter, image: Tensor, memory: Memory | None) -> Tensor:
    return _segment(method, image, memory).labels


def _rounded(value: float, digits: int = 4) -> float | None:
    """Round a score; None for one that the labels do not define."""
    return None if math.isnan(value) else round(value, digits)
