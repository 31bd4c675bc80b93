"""Curves of quality over cost, work or time: which points count, and how far others fall short.

Between two points of a curve quality goes linearly with the logarithm of the cost.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple


class Point(NamedTuple):
    """Cost, time [ms] or a share of work, and quality reached at it."""

    cost: float
    quality: float


def pareto(points: Iterable[Point]) -> list[Point]:
    """Return the points that no other is cheaper and better than, cheapest first."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.quality)):
        if not kept or point.quality > kept[-1].quality:
            kept.append(point)
    return kept


def hull(points: Iterable[Point]) -> list[Point]:
    """Return the corners of the upper hull, cheapest first: no mixture of two points lies above it."""
    kept: list[Point] = []
    for point in pareto(points):
        while len(kept) > 1 and _slope(kept[-2], kept[-1]) <= _slope(kept[-2], point):
            kept.pop()
        kept.append(point)
    return kept


def quality_at(curve: Sequence[Point], cost: float) -> float | None:
    """Return the quality that a curve of `pareto` or `hull` reaches at a cost.

    It is that of the best point for all that costs more, and None before the cheapest.
    """
    if not curve or cost < curve[0].cost:
        return None
    if cost >= curve[-1].cost:
        return curve[-1].quality
    a, b = next(pair for pair in pairwise(curve) if cost <= pair[1].cost)
    return a.quality + math.log(cost / a.cost) / math.log(b.cost / a.cost) * (b.quality - a.quality)


def _slope(a: Point, b: Point) -> float:
    return (b.quality - a.quality) / math.log(b.cost / a.cost)
