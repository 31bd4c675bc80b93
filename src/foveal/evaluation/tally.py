"""What is measured of one method over images or frames: sums that become a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isnan
from statistics import fmean, median

import torch
from torch import Tensor

from foveal.evaluation.metrics import BoundaryScore, Confusion
from foveal.evaluation.rows import EvalRow
from foveal.methods import AdaptiveSegmenter, Prediction
from foveal.methods.config import SettingValue

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
        of_labels: Whether the risk is of the error beyond the dense network's, which is measured then.
        settings: Of the method by name; None for what has none.
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


@dataclass
class Tally:
    """Sums of one row over the images."""

    entry: Entry
    classes: int
    confusion: Confusion = field(init=False)
    boundary: BoundaryScore = field(default_factory=BoundaryScore)
    works: list[float] = field(default_factory=list)
    macs: list[int] = field(default_factory=list)
    agreement: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.confusion = Confusion(self.classes)

    def count(
        self,
        prediction: Prediction,
        macs: int,
        target: Tensor,
        reference: Tensor | None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """Count what a method says about an image; return its labels [1, H, W].

        Args:
            prediction: What it says.
            macs: What that took [MAC].
            target: True labels [1, H, W].
            reference: Labels of the dense network [1, H, W]; None for the dense network itself.
            wanted: Pixels that count [1, H, W]; None for all.
        """
        labels = prediction.labels
        self.macs.append(macs)
        self.works.append(float(prediction.trace.work[0]))
        self.confusion.add(labels, target)
        self.boundary.add(labels, target)
        same = labels == (labels if reference is None else reference)
        counting = same if wanted is None else same[wanted]
        if counting.numel():
            self.agreement.append(float(counting.double().mean()))
        return labels

    def row(self, classes: Sequence[str]) -> EvalRow:
        """Return the means over the images that were counted."""
        return EvalRow(
            method=self.entry.method,
            policy=self.entry.policy,
            budget=self.entry.budget,
            work=round(fmean(self.works), 4),
            work_max=round(max(self.works), 4),
            miou=rounded(self.confusion.miou),
            iou=dict(zip(classes, map(rounded, self.confusion.iou.tolist()), strict=True)),
            pixel_accuracy=rounded(self.confusion.accuracy),
            boundary_f=rounded(self.boundary.score),
            agreement=round(fmean(self.agreement), 5) if self.agreement else None,
            macs=round(fmean(self.macs)),
            ms=round(median(self.times), 2) if self.times else None,
            images=len(self.works),
            risk=self.entry.risk,
            settings=self.entry.settings,
        )


def with_dense(dense: AdaptiveSegmenter, entries: Sequence[Entry]) -> list[Entry]:
    """Put the row of the dense network before the others."""
    return [Entry("dense", "", 1.0, lambda target: dense), *entries]


def timed_turns(count: int, timed: int) -> set[int]:
    """Spread the images that are timed evenly over all of them; 0 for none."""
    return {index * count // timed for index in range(min(timed, count))} if timed else set()


def completed(run: Callable[[], Prediction]) -> Prediction:
    """Segment an image up to the labels, which are kept with the prediction."""
    prediction = run()
    _ = prediction.labels
    return prediction


def as_batch(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return an image [C, H, W] and its labels [H, W] as a batch of one."""
    image, target = pair
    return image[None].to(memory_format=torch.channels_last), target[None]


def rounded(value: float, digits: int = 4) -> float | None:
    """Round a score; None for one that the labels do not define."""
    return None if isnan(value) else round(value, digits)
