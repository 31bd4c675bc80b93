"""Isotonic regression: the growing curve of least squared error."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

import numpy as np

from foveal.storage.schema import Number


@dataclass(frozen=True)
class IsotonicCurve:
    """A growing map from the gain that an image was left with to the disagreement that is expected.

    Straight between the points, level outside them.

    Attributes:
        gains: Gain per pixel of what was not refined, growing.
        losses: Disagreement there, never falling.
    """

    gains: tuple[Number, ...]
    losses: tuple[Number, ...]

    def __post_init__(self) -> None:
        if not self.gains or len(self.gains) != len(self.losses) or list(self.gains) != sorted(self.gains):
            raise ValueError(
                f"a curve of {len(self.gains)} gains and {len(self.losses)} losses; give as many, growing"
            )

    @classmethod
    def fit(cls, gains: Iterable[float], losses: Iterable[float]) -> IsotonicCurve:
        """Fit the growing curve of least squared error to pairs of gain and loss.

        Raises:
            ValueError: There is no pair, or a number is not finite.
        """
        pairs = list(zip(gains, losses, strict=True))
        if not pairs or not all(math.isfinite(x) and math.isfinite(y) for x, y in pairs):
            raise ValueError(
                f"{len(pairs)} pairs of gain and loss; give at least one, and only finite numbers"
            )
        points = []
        for first, last, mean, _ in _pool_violators(pairs):
            points += [(first, mean)] if first == last else [(first, mean), (last, mean)]
        return cls(tuple(x for x, _ in points), tuple(y for _, y in points))

    def __call__(self, gain: float) -> float:
        """Return the disagreement that is expected at a gain."""
        return float(np.interp(gain, self.gains, self.losses))


def _pool_violators(pairs: Iterable[tuple[float, float]]) -> list[tuple[float, float, float, int]]:
    """Fit the growing step function of least squared error: first x, last x, mean y and count of every step.

    Source: the pool-adjacent-violators algorithm, Ayer et al., "An Empirical Distribution Function for
    Sampling with Incomplete Information", Annals of Mathematical Statistics, 1955.
    """
    steps: list[tuple[float, float, float, int]] = []
    for x, group in groupby(sorted(pairs), key=lambda pair: pair[0]):
        values = [y for _, y in group]
        steps.append((x, x, fmean(values), len(values)))
        while len(steps) > 1 and steps[-2][2] >= steps[-1][2]:
            (first, _, low, few), (_, last, high, more) = steps[-2:]
            steps[-2:] = [(first, last, (low * few + high * more) / (few + more), few + more)]
    return steps
