"""Which tiles of a frame to compute, at which level, and which to keep from the last frame, for a budget.

Every aligned square of cells is kept, computed as one tile, or divided into its four quarters, of which each
is again one of the three. For a price of a tile the best choice is found from the finest squares upwards; the
price is raised until the tiles are paid for. So no other choice of as many tiles has a smaller error: the
choices are the corners of the convex hull of error over tiles.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from foveal.geometry.plan import SKIP
from foveal.geometry.planner import spread
from foveal.geometry.squares import sum_squares

ROUNDS = 40
"""Halvings of the interval of prices."""
LEAST = 1e-9
"""Smallest price, as a share of the largest: what gains nothing is kept."""
TIES = 1e-3
"""Share by which gains that are equal are told apart, by their place."""


class _Choice(NamedTuple):
    """What is best at a price.

    Attributes:
        levels: Level per cell [Gh, Gw], or SKIP.
        tiles: Tiles that are computed.
    """

    levels: Tensor
    tiles: int


def choose_levels(kept: Tensor, computed: Tensor, budget: float, least: float = 0.0) -> Tensor:
    """Choose what is computed in one frame.

    Args:
        kept: Error of every cell if it keeps its answer [Gh, Gw].
        computed: Error of every cell if it is computed at level 0, 1, ... [levels, Gh, Gw].
        budget: Tiles that are paid for.
        least: What a tile must gain at least.

    Returns:
        Level per cell [Gh, Gw], int8; SKIP where the answer is kept.

    Raises:
        ValueError: Errors are not finite, or of different cells.
    """
    kept, computed = kept.double().cpu(), computed.double().cpu()
    if computed.shape[1:] != kept.shape or not len(computed):
        raise ValueError(
            f"errors are for {list(kept.shape)} cells if kept and {list(computed.shape)} if computed; give "
            "the second for every level of the same cells"
        )
    if not bool(kept.isfinite().all() and computed.isfinite().all()):
        raise ValueError("errors hold NaN or infinity; give finite errors per cell")
    gains = [(kept - error) * _told_apart(kept) for error in computed]
    gains = [sum_squares(gain, 2**level) for level, gain in enumerate(gains)]
    high = sum(float(gain.clamp(min=0).max()) for gain in gains) + LEAST
    low = max(least, high * LEAST)
    found = _best(gains, low, kept)
    if found.tiles <= budget:
        return found.levels
    best = torch.full_like(found.levels, SKIP)
    for _ in range(ROUNDS):
        price = (low + high) / 2
        found = _best(gains, price, kept)
        if found.tiles <= budget:
            high, best = price, found.levels
        else:
            low = price
    return best


def _best(gains: list[Tensor], price: float, like: Tensor) -> _Choice:
    """Choose from the finest squares upwards what is worth more than its price."""
    worth = (gains[0] - price).clamp(min=0)
    taken = [gains[0] > price]
    for gain in gains[1:]:
        parts = sum_squares(worth, 2)
        taken.append(gain - price > parts)
        worth = torch.maximum(parts, gain - price)
    levels, tiles = torch.full(like.shape, SKIP, dtype=torch.int8), 0
    for level in range(len(gains) - 1, -1, -1):
        free = levels[:: 2**level, :: 2**level] == SKIP
        chosen = taken[level] & free
        tiles += int(chosen.sum())
        levels[spread(chosen, 2**level, levels)] = level
    return _Choice(levels, tiles)


def _told_apart(like: Tensor) -> Tensor:
    """Return factors near 1 that differ among cells: equal ones could only be chosen all at once."""
    golden = 0.618034
    place = torch.arange(like.numel(), dtype=torch.float64).view(like.shape)
    return 1 + TIES * (place * golden % 1)
