"""Losses of calibration images at every setting, and the setting of least work that keeps a risk.

A *setting* is a threshold on the gain per tile: a lower one refines more. Setting 0 is the dense network
itself, with loss 0; thresholds grow from there. Losses lie between 0 and 1: disagreement with the dense
network, or the error against labels beyond the dense network's.

**Mixed with dense.** The first pass leaves no work for a plan that is nearly dense, so the losses of all
thresholds are several times a risk of 1 %. A share of the images runs at one threshold, and the others run
dense; which ones, a hash of their content says (`drawn.py`). Over the hash the loss of an image is the share
times its loss at the threshold. That is at most the share: the only bound below 1 that nothing but arithmetic
proves, because refined tiles and even whole images may differ from dense in every pixel, rare classes first.
So the price of few images falls with the risk, too.

Which threshold is mixed, and all that decides what a threshold means, must be chosen on other images than
those whose losses are here. Then larger risks follow one path: dense, growing shares of the mixed threshold,
then the thresholds above it. Along the path every image's loss grows, where those of thresholds count as the
largest so far: passes that are planned again may choose other tiles.

Source: Angelopoulos, Bates, Fisch, Lei and Schuster, "Conformal Risk Control", ICLR 2024, Theorem 1; its
proof needs the bound of the unknown loss at the setting that is chosen only, so it may grow along the path.
Testing along a path in a fixed order: Angelopoulos, Bates, Candes, Jordan and Lei, "Learn then Test", Annals
of Applied Statistics 2025.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from foveal.calibration.isotonic import IsotonicCurve
from foveal.calibration.risk.bounds import CONFORMAL, LARGEST, Bound
from foveal.storage.schema import Count, Number, Share, read_as

PARTS = 100_000
"""Losses are kept in parts of 1 / PARTS, rounded up, so that rounding never breaks the promise."""
EVERY = 4
"""Every so many images one chooses settings, and does not calibrate."""
ROUNDING = 1e-12  # of sums of losses


@dataclass(frozen=True)
class RiskSetting:
    """What to run so that a risk is kept.

    Attributes:
        index: Place in the table; 0 is the dense network.
        threshold: Least gain of a tile that is refined.
        work: Mean share of the dense work on the calibration images, of all images that come.
        bound: The expected loss is at most this.
        share: Share of the images that run at the threshold; the others run dense.
    """

    index: int
    threshold: float
    work: float
    bound: float
    share: float = 1.0

    @property
    def dense(self) -> bool:
        """Whether it is the dense network: nothing that costs less keeps the risk."""
        return self.index == 0

    @property
    def adapted_work(self) -> float:
        """Mean share of the dense work of the images that run at the threshold."""
        return 1 - (1 - self.work) / self.share


@dataclass(frozen=True)
class RiskTable:
    """The losses of calibration images at every setting, from which a setting is chosen for any risk.

    Attributes:
        thresholds: Least gain of a tile that is refined, per setting, growing.
        works: Mean share of the dense work, per setting.
        losses: Loss of every image at every setting, as measured, rounded up.
        curve: Map from the gain that an image is left with to its loss; None if that was not measured.
        mixed: Setting that the dense network is mixed with, chosen on other images; 0 if none saves work.
            None for whole settings only, as older profiles have them.

    Raises:
        ValueError: The numbers do not fit together, or are no losses.
    """

    thresholds: tuple[Number, ...]
    works: tuple[Number, ...]
    losses: tuple[tuple[Share, ...], ...]
    curve: IsotonicCurve | None = None
    mixed: Count | None = None

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
        if self.mixed is not None and self.mixed >= settings:
            raise ValueError(f"mixed is setting {self.mixed} of {settings}; give one that there is")
        check_losses(torch.tensor(self.losses, dtype=torch.float64))

    @classmethod
    def fit(
        cls,
        thresholds: Sequence[float],
        works: Tensor,
        losses: Tensor,
        remaining: Tensor | None = None,
        mixed: int | None = None,
    ) -> RiskTable:
        """Make the table from what was measured on n calibration images at L settings.

        Args:
            thresholds: Least gain of a tile that is refined, per setting; setting 0 is the dense network.
            works: Share of the dense work [n, L], or its mean [L].
            losses: Losses [n, L].
            remaining: Gain per pixel of what was not refined [n, L].
            mixed: What `choose_mixed` found on other images.

        Raises:
            ValueError: Shapes differ, or losses are not in [0, 1], or the dense network's not 0.
        """
        check_losses(losses)
        rows = tuple(tuple(map(_round_up, row)) for row in losses.tolist())
        mean = works.double().expand_as(losses).mean(0).tolist()
        curve = (
            None
            if remaining is None
            else IsotonicCurve.fit(remaining.flatten().tolist(), losses.flatten().tolist())
        )
        return cls(tuple(map(float, thresholds)), tuple(mean), rows, curve, mixed)

    def choose(self, alpha: float, bound: Bound = CONFORMAL) -> RiskSetting:
        """Choose what of least work keeps the expected loss within alpha; the dense network if need be.

        Args:
            alpha: The risk that is allowed.
            bound: Bound on the expected loss; what is promised is its `promise`.

        Raises:
            ValueError: Alpha is not in (0, 1], or nothing can be mixed and it needs more calibration images
                than there are.
        """
        losses, works = (torch.tensor(x, dtype=torch.float64) for x in (self.losses, self.works))
        index, share, found = find_setting(losses, works, alpha, self.mixed, bound)
        work = 1 - share * (1 - self.works[index])
        return RiskSetting(index, self.thresholds[index], work, found, share)

    def estimate(self, gain: float) -> float:
        """Estimate the loss of one image from the gain that was left; no promise, a mean.

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


def needed(alpha: float) -> int:
    """Return how many calibration images a risk of alpha needs at least, where nothing is mixed.

    Raises:
        ValueError: Alpha is not in (0, 1].
    """
    if not 0 < alpha <= LARGEST:
        raise ValueError(f"risk is {alpha:g}; give a share of disagreement above 0 and at most {LARGEST:g}")
    return max(1, math.ceil(LARGEST / alpha - 1e-9) - 1)


def choose_mixed(losses: Tensor, works: Tensor, calibrating: int) -> int:
    """Choose the setting to mix with dense: it saves most work for the bound of its losses.

    Args:
        losses: Losses [n, L] of images that will not calibrate.
        works: Their shares of the dense work [n, L].
        calibrating: Number of images that will, and whose bound it is about.

    Returns:
        The setting; 0 if none saves work.
    """
    check_losses(losses)
    bounds = losses.double().mean(0) * calibrating + LARGEST  # times calibrating + 1, of all settings
    saved = (1 - works.double().mean(0)) / bounds
    best = int(saved.argmax())
    return best if saved[best] > 0 else 0


def find_setting(
    losses: Tensor, works: Tensor, alpha: float, mixed: int | None, bound: Bound = CONFORMAL
) -> tuple[int, float, float]:
    """Choose a setting: its index, the share of the images that it runs on, and the bound of both.

    Bounds are looked at along the path and only as far as they are within alpha; everything before the first
    that is not keeps the risk, so works need not fall.

    Args:
        losses: Losses [n, L], double precision.
        works: Mean share of the dense work [L].
        alpha: The risk that is allowed.
        mixed: Setting that dense is mixed with; None for whole settings only.
        bound: Bound on the expected loss.

    Raises:
        ValueError: As of `RiskTable.choose`.
    """
    count, least = len(losses), needed(alpha)
    if mixed is None and bound is CONFORMAL and count < least:
        raise ValueError(
            f"risk {alpha:g} needs at least {least} calibration images and there are {count}; give more "
            f"images, or ask for a risk of at least {_round_up(LARGEST / (count + 1)):g}"
        )
    first = 1 if mixed is None else mixed
    if first == 0:
        return 0, 1.0, 0.0
    largest = losses[:, first:].cummax(1).values
    allowed = {0: 0.0}  # of the dense network nothing has to be estimated
    for index, column in enumerate(largest.unbind(1), start=first):
        found = bound.of(column)
        if found > alpha + ROUNDING:
            if index == mixed and works[mixed] < 1:
                share = math.floor(alpha / found * PARTS) / PARTS
                return (mixed, share, share * found) if share else (0, 1.0, 0.0)
            break
        allowed[index] = found
    best = min(allowed, key=works.tolist().__getitem__)
    return best, 1.0, allowed[best]


def check_losses(losses: Tensor) -> None:
    """Refuse what are no losses.

    Raises:
        ValueError: They are no table, or not in [0, 1], or those of the dense network are not 0.
    """
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
