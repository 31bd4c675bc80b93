"""Curves of quality over milliseconds, and two of them compared at equal quality and at equal time.

Between two points of a curve quality goes linearly with the logarithm of time.

Source: the mean over the logarithm of the cost is that of Bjoentegaard, "Calculation of average PSNR
differences between RD-curves", ITU-T VCEG-M33, 2001; here with straight lines instead of a polynomial.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from foveal.calibration.curves import Point, quality_at

SAMPLES = 201
"""Points at which two curves are compared, evenly over the quality or the logarithm of time they share."""


def time_at(curve: Sequence[Point], quality: float) -> float | None:
    """Return the time in which a curve of `pareto` reaches a quality [ms].

    It is that of the fastest point for all that this reaches, and None above the best point.
    """
    if not curve or quality > curve[-1].quality:
        return None
    if quality <= curve[0].quality:
        return curve[0].cost
    a, b = next(pair for pair in pairwise(curve) if quality <= pair[1].quality)
    share = (quality - a.quality) / (b.quality - a.quality)
    return math.exp(math.log(a.cost) + share * math.log(b.cost / a.cost))


@dataclass(frozen=True)
class Spread:
    """How two curves differ over a range that both reach.

    Attributes:
        low: Lower end of the range.
        high: Upper end.
        mean: Mean difference; of ratios the geometric mean.
        least: Smallest difference.
        most: Largest difference.
    """

    low: float
    high: float
    mean: float
    least: float
    most: float


@dataclass(frozen=True)
class Comparison:
    """Our curve beside the static one.

    Attributes:
        speedup: Static time over ours at equal quality, over the quality that both reach; None if there is
            none.
        gain: Our quality minus the static one at equal time, from where both have an answer up to the slowest
            point of either.
    """

    speedup: Spread | None
    gain: Spread | None


def compare(ours: Sequence[Point], static: Sequence[Point]) -> Comparison:
    """Compare two curves of `pareto`."""
    if not ours or not static:
        return Comparison(None, None)
    low, high = max(c[0].quality for c in (ours, static)), min(c[-1].quality for c in (ours, static))
    start, end = max(c[0].cost for c in (ours, static)), max(c[-1].cost for c in (ours, static))
    return Comparison(
        _spread(lambda q: _ratio(time_at(static, q), time_at(ours, q)), low, high, geometric=True),
        _spread(
            lambda ms: _minus(quality_at(ours, ms), quality_at(static, ms)), start, end, logarithmic=True
        ),
    )


def _spread(
    difference: Callable[[float], float | None],
    low: float,
    high: float,
    geometric: bool = False,
    logarithmic: bool = False,
) -> Spread | None:
    """Sample a difference evenly over a range, or evenly over its logarithm."""
    if low > high:
        return None
    shares = [k / (SAMPLES - 1) for k in range(SAMPLES)]
    spots = [low * (high / low) ** s if logarithmic else low + s * (high - low) for s in shares]
    spots[-1] = high
    values = [value for value in map(difference, spots) if value is not None]
    mean = math.exp(sum(map(math.log, values)) / len(values)) if geometric else sum(values) / len(values)
    return Spread(low, high, mean, min(values), max(values))


def _ratio(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a / b


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b
