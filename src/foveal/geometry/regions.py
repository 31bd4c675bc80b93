"""Regions of an image that are computed closely, with what a network needs around them.

A region is an aligned square of cells that is chosen as one. What regions cost depends on one another: the
margins of neighbours overlap, and coarse tiles end where a region begins. So regions are taken in the order
of their scores for as long as the whole fits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.geometry.plan import SKIP
from foveal.geometry.planner import spread
from foveal.geometry.squares import group_squares, sum_squares

TRIES = 32
"""Regions that do not fit any more, after which the search for one that does ends."""


@dataclass(frozen=True)
class Regions:
    """How regions are computed.

    Attributes:
        side: Cells on the side of a region.
        margin: Cells around a chosen region that are computed like it.
        level: Level of the rest of an image in which anything is chosen; SKIP leaves it out.

    Raises:
        ValueError: A region has no cell, or the margin is negative.
    """

    side: int = 1
    margin: int = 0
    level: int = SKIP

    def __post_init__(self) -> None:
        if self.side < 1 or self.margin < 0 or self.level < SKIP:
            raise ValueError(
                f"side is {self.side}, margin {self.margin} and level {self.level}; give a side of at least "
                "1, a margin of at least 0, and a level or SKIP"
            )

    def levels(self, chosen: Tensor) -> Tensor:
        """Return the level of every cell [Gh, Gw], int8, where cells are chosen [Gh, Gw], bool."""
        if not bool(chosen.any()):
            return torch.full(chosen.shape, SKIP, dtype=torch.int8)
        near = self._near(chosen)
        if self.level == SKIP:
            return torch.where(near, 0, SKIP).to(torch.int8)
        levels = torch.zeros(chosen.shape, dtype=torch.int8)
        for level in range(1, self.level + 1):  # squares without a chosen cell lie in smaller ones without
            free = ~group_squares(near[None], 2**level).any(-1)[0]
            levels[spread(free, 2**level, near)] = level
        return levels

    def used(self, chosen: Tensor, levels: Tensor) -> Tensor:
        """Say which cells [.., Gh, Gw] get the close answer: those chosen; without a margin all at level 0.

        Beside coarse tiles some cells come to level 0 because a chosen one lies in their square; without a
        margin their answer is as good.
        """
        return chosen if self.margin else levels == 0

    def rates(self, scores: Tensor) -> Tensor:
        """Return the mean score [rows, columns] of the cells [Gh, Gw] of every region."""
        ones = torch.ones_like(scores)
        return sum_squares(scores, self.side) / sum_squares(ones, self.side)

    def best(self, scores: Tensor, count: int) -> Tensor:
        """Choose the `count` regions of the highest mean score; return their cells [Gh, Gw], bool."""
        return self._cells(self._order(self.rates(scores))[:count], scores)

    def choose(self, scores: Tensor, tiles: float, threshold: float | None = None) -> Tensor:
        """Choose regions in falling order of their mean score, as far as all that is computed fits.

        One that does not fit is passed over for the next that does. Equals come in reading order.

        Args:
            scores: Of every cell [Gh, Gw].
            tiles: How many tiles may be computed.
            threshold: Least mean score of a region; any if absent.

        Returns:
            Cells of the chosen regions [Gh, Gw], bool.

        Raises:
            ValueError: The threshold or the number of tiles is NaN.
        """
        if math.isnan(tiles) or math.isnan(threshold or 0.0):
            raise ValueError(f"tiles is {tiles} and threshold {threshold}; give numbers")
        rates = self.rates(scores)
        order = self._order(rates)
        if threshold is not None:
            order = order[: int((rates >= threshold).sum())]

        chosen = torch.zeros(0, dtype=torch.int64)
        for _ in range(TRIES):

            def fits(count: int, kept: Tensor = chosen, rest: Tensor = order) -> bool:
                cells = self._cells(torch.cat([kept, rest[:count]]), scores)
                return count_tiles(self.levels(cells)) <= tiles

            count = _longest(fits, len(order))
            chosen, order = torch.cat([chosen, order[:count]]), order[count + 1 :]
            if not len(order) or count_tiles(self.levels(self._cells(chosen, scores))) + 1 > tiles:
                break
        return self._cells(chosen, scores)

    def _order(self, rates: Tensor) -> Tensor:
        return rates.flatten().argsort(descending=True, stable=True)

    def _cells(self, regions: Tensor, like: Tensor) -> Tensor:
        """Return the cells of regions, which are given by their numbers in reading order."""
        rows, columns = (-(-side // self.side) for side in like.shape)
        mask = torch.zeros(rows * columns, dtype=torch.bool)
        mask[regions] = True
        return spread(mask.view(rows, columns), self.side, like)

    def _near(self, chosen: Tensor) -> Tensor:
        """Return the cells that are chosen or in a margin."""
        if not self.margin:
            return chosen
        return F.max_pool2d(chosen[None].float(), 2 * self.margin + 1, 1, self.margin)[0] > 0


def count_tiles(levels: Tensor) -> int:
    """Count the tiles of a plan of one image, by the level of every cell [Gh, Gw]."""
    return sum(
        int((levels[:: 2**level, :: 2**level] == level).sum()) for level in range(int(levels.max()) + 1)
    )


def _longest(fits: Callable[[int], bool], most: int) -> int:
    """Return the largest number up to `most` that fits, if all smaller ones do; 0 fits without asking."""
    low, step = 0, 1
    while low + step <= most and fits(low + step):
        low, step = low + step, 2 * step
    high = min(most + 1, low + step)  # does not fit, or is beyond the last
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
