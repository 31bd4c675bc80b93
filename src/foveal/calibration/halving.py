"""Successive halving: many settings on few images, and ever fewer of them on more.

Source: Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization",
AISTATS 2016; here a setting is kept for its distance from the best mixture at its cost, not for its quality
alone, because a setting is wanted for every cost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

from foveal.calibration.curves import Point, hull, quality_at


def rungs(images: int, first: int) -> list[int]:
    """Return how many images every rung uses: `first`, twice as many, ..., all.

    The last rung but one has at least a factor of 1.5 to go, so that no rung repeats the one before.
    """
    found = [min(first, images)]
    while 3 * found[-1] < 2 * images:
        found.append(min(2 * found[-1], images))
    return [*found[:-1], images]


def image_order(images: int, seed: int) -> list[int]:
    """Return the order in which images are taken: at random, as neighbours may be alike."""
    return Random(seed).sample(range(images), images)


def shortfalls(costs: Sequence[float], qualities: Sequence[float]) -> list[float]:
    """Return how far every point lies below the upper hull of all at its own cost, 0 on the hull."""
    corners = hull(Point(*pair) for pair in zip(costs, qualities, strict=True))
    best = (quality_at(corners, cost) for cost in costs)
    return [max(0.0, (b or 0.0) - q) for b, q in zip(best, qualities, strict=True)]


def survivors(
    costs: Sequence[Sequence[float]], qualities: Sequence[float], kept: Sequence[bool], share: float = 0.5
) -> list[int]:
    """Choose who goes on to the next rung: the nearest to an upper hull, of quality over any of the costs.

    Args:
        costs: One sequence a kind of cost, an entry for everyone; none below or at 0.
        qualities: Of everyone.
        kept: Who goes on whatever happens, and takes nobody's place.
        share: How many of the others do, rounded up.

    Returns:
        Indices, in their order.
    """
    per_cost = [shortfalls(cost, qualities) for cost in costs]
    distance = [min(each) for each in zip(*per_cost, strict=True)]
    others = sorted((k for k, always in enumerate(kept) if not always), key=lambda k: (distance[k], k))
    chosen = others[: math.ceil(share * len(others))]
    return sorted([*chosen, *(k for k, always in enumerate(kept) if always)])
