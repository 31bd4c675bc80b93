"""Risk control: the least work whose disagreement with the dense network is at most what is allowed.

A *setting* is a threshold on the gain per tile: a lower one refines more. On n calibration images the loss of
every setting is measured, between 0 and 1: disagreement with the dense network, so no labels are needed.
Setting 0 is the dense network itself, with loss 0; thresholds grow from there.

What is promised: over the draw of the calibration images and of one new image, the expected loss of the new
image is at most alpha. It is a mean, not a bound for every image, and it holds for images that are drawn as
the calibration images were: neighbouring frames of one drive count for less than their number.

Losses need not grow with the threshold, because passes that are planned again may choose other tiles. So the
loss of a setting counts as the largest of the settings up to it; the promise holds for any smaller one.

Source: Angelopoulos, Bates, Fisch, Lei and Schuster, "Conformal Risk Control", ICLR 2024, eq. 4 and Theorem
1; the running maximum is how they treat losses that are not monotone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from foveal.calibration.isotonic import IsotonicCurve
from foveal.storage.schema import Number, Share, read_as

LARGEST = 1.0
"""Largest loss that an image can have."""
PARTS = 100_000
"""Losses are kept in parts of 1 / PARTS, rounded up, so that rounding never breaks the promise."""
ROUNDING = 1e-12  # of sums of losses


@dataclass(frozen=True)
class RiskSetting:
    """What to run so that a risk is kept.

    Attributes:
        index: Place in the table; 0 is the dense network.
        threshold: Least gain of a tile that is refined.
        work: Mean share of the dense work on the calibration images.
        bound: The expected loss is at most this.
    """

    index: int
    threshold: float
    work: float
    bound: float

    @property
    def dense(self) -> bool:
        """Whether it is the dense network: nothing that costs less keeps the risk."""
        return self.index == 0


@dataclass(frozen=True)
class RiskTable:
    """The losses of calibration images at every setting, from which a setting is chosen for any risk.

    Attributes:
        thresholds: Least gain of a tile that is refined, per setting, growing.
        works: Mean share of the dense work, per setting.
        losses: Loss of every image at every setting, as measured, rounded up.
        curve: Map from the gain that an image is left with to its disagreement; None if that
            was not measured.

    Raises:
        ValueError: The numbers do not fit together, or are no losses.
    """

    thresholds: tuple[Number, ...]
    works: tuple[Number, ...]
    losses: tuple[tuple[Share, ...], ...]
    curve: IsotonicCurve | None = None

    def __post_init__(self) -> None:
        settings = len(self.thresholds)
        if not settings or {settings} != {len(self.works), *(len(row) for row in self.losses)}:
            raise ValueError(
                f"{settings} thresholds, {len(self.works)} works and losses of "
                f"{sorted({len(row) for row in self.losses})} settings; give one of each for every setting"
            )
        finite = all(math.isfinite(x) for x in (*self.thresholds, *self.works))
        if not finite or list(self.thresholds) != sorted(self.thresholds):
            raise ValueError(
                f"thresholds are {self.thresholds} and works {self.works}; give finite numbers, thresholds "
                "from low to high"
            )
        _check_losses(torch.tensor(self.losses, dtype=torch.float64))

    @classmethod
    def fit(
        cls, thresholds: Sequence[float], works: Tensor, losses: Tensor, remaining: Tensor | None = None
    ) -> RiskTable:
        """Make the table from what was measured on n calibration images at L settings.

        Args:
            thresholds: Least gain of a tile that is refined, per setting; setting 0 is the dense network.
            works: Share of the dense work [n, L], or its mean [L].
            losses: Disagreement with the dense network [n, L].
            remaining: Gain per pixel of what was not refined [n, L].

        Raises:
            ValueError: Shapes differ, or losses are not in [0, 1], or the dense network's not 0.
        """
        _check_losses(losses)
        rows = tuple(tuple(map(_round_up, row)) for row in losses.tolist())
        mean = works.double().expand_as(losses).mean(0).tolist()
        curve = (
            None
            if remaining is None
            else IsotonicCurve.fit(remaining.flatten().tolist(), losses.flatten().tolist())
        )
        return cls(tuple(map(float, thresholds)), tuple(mean), rows, curve)

    def choose(self, alpha: float) -> RiskSetting:
        """Choose the setting of least work whose expected loss is at most alpha; the dense one if need be.

        Raises:
            ValueError: Alpha is not in (0, 1], or needs more calibration images than there are.
        """
        losses, works = (torch.tensor(x, dtype=torch.float64) for x in (self.losses, self.works))
        index, bound = _choose(losses, works, alpha)
        return RiskSetting(index, self.thresholds[index], self.works[index], bound)

    def estimate(self, gain: float) -> float:
        """Estimate the disagreement of one image from the gain that was left; no promise, a mean.

        Args:
            gain: Gain per pixel of what was not refined.

        Raises:
            ValueError: Remaining gains were not measured.
        """
        if self.curve is None:
            raise ValueError("the risk table was measured without remaining gains; calibrate again with them")
        return self.curve(gain)

    def as_dict(self) -> dict[str, Any]:
        """Return the table as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> RiskTable:
        """Make the table from what `as_dict` returned.

        Raises:
            ValueError: It holds no risk table; calibrate again.
        """
        try:
            return read_as(cls, state, "this", "risk table")
        except ValueError as error:
            raise ValueError(f"{error}; calibrate again") from None


@dataclass(frozen=True)
class Coverage:
    """How well a risk was kept over random splits into calibration and test images.

    Attributes:
        alpha: Risk that was allowed.
        calibration: Calibration images of a split.
        test: Test images of a split.
        risk: Mean loss of the test images.
        error: Standard error of `risk` over the splits: of these images, not of others.
        slack: What was allowed and not used, alpha - risk.
        work: Mean share of the dense work on the test images.
    """

    alpha: float
    calibration: int
    test: int
    risk: float
    error: float
    slack: float
    work: float


def needed(alpha: float) -> int:
    """Return how many calibration images a risk of alpha needs at least.

    Raises:
        ValueError: Alpha is not in (0, 1].
    """
    if not 0 < alpha <= LARGEST:
        raise ValueError(f"risk is {alpha:g}; give a share of disagreement above 0 and at most {LARGEST:g}")
    return max(1, math.ceil(LARGEST / alpha - 1e-9) - 1)


def coverage(
    losses: Tensor,
    works: Tensor,
    alphas: Iterable[float],
    splits: int = 100,
    share: float = 0.5,
    seed: int = 0,
) -> list[Coverage]:
    """Measure on random splits of measured images how well risks are kept, and at what work.

    Args:
        losses: Disagreement with the dense network [n, L].
        works: Share of the dense work [n, L], or its mean [L].
        alphas: Risks to try.
        splits: Number of splits, at least 2.
        share: Of the images that calibrate; more do where alpha needs more.
        seed: Of the splits.

    Raises:
        ValueError: An alpha leaves no image to test, or losses or splits are none.
    """
    _check_losses(losses)
    if splits < 2:
        raise ValueError(f"splits is {splits}; give at least 2, so that the risk has a standard error")
    losses, works = losses.double(), works.double().expand_as(losses)
    rows = []
    for alpha in alphas:
        count = max(needed(alpha), round(share * len(losses)))
        if count >= len(losses):
            raise ValueError(
                f"risk {alpha:g} calibrates on {count} images and there are {len(losses)} in all; measure "
                "more images, or ask for a larger risk or a smaller share"
            )
        draw, test = Generator().manual_seed(seed), len(losses) - count
        orders = [torch.randperm(len(losses), generator=draw) for _ in range(splits)]
        tried = torch.tensor([_try(losses[x], works[x], alpha, count) for x in orders], dtype=torch.float64)
        risk, work = tried.mean(0).tolist()
        error = float(tried[:, 0].std()) / math.sqrt(splits)
        rows.append(Coverage(alpha, count, test, risk, error, alpha - risk, work))
    return rows


def _try(losses: Tensor, works: Tensor, alpha: float, count: int) -> tuple[float, float]:
    """Calibrate on the first `count` images: the mean loss and work of the others."""
    index, _ = _choose(losses[:count], works[:count].mean(0), alpha)
    return float(losses[count:, index].mean()), float(works[count:, index].mean())


def _choose(losses: Tensor, works: Tensor, alpha: float) -> tuple[int, float]:
    """Choose a setting from losses [n, L] and mean works [L]: its index, and its bound.

    The settings that are allowed are the first ones, since bounds grow; any of them keeps the risk, so works
    need not fall.
    """
    count, least = len(losses), needed(alpha)
    if count < least:
        raise ValueError(
            f"risk {alpha:g} needs at least {least} calibration images and there are {count}; give more "
            f"images, or ask for a risk of at least {_round_up(LARGEST / (count + 1)):g}"
        )
    bounds = ((losses.cummax(1).values.sum(0) + LARGEST) / (count + 1)).tolist()
    bounds[0] = 0.0  # of the dense network nothing has to be estimated
    allowed = [index for index, bound in enumerate(bounds) if bound <= alpha + ROUNDING]
    best = min(allowed, key=works.tolist().__getitem__)
    return best, bounds[best]


def _check_losses(losses: Tensor) -> None:
    if losses.ndim != 2 or not losses.numel():
        raise ValueError(f"losses are {tuple(losses.shape)}; give [n, L] of n images at L settings")
    low, high = float(losses.min()), float(losses.max())
    if not 0 <= low <= high <= LARGEST:
        raise ValueError(f"losses lie between {low:g} and {high:g}; give shares from 0 to {LARGEST:g}")
    if bool(losses[:, 0].any()):
        raise ValueError("losses of setting 0 are not 0; put the dense network first, it agrees with itself")


def _round_up(loss: float) -> float:
    """Round up to a part, and leave whole parts as they are."""
    return math.ceil(loss * PARTS - 1e-6) / PARTS
