"""Regions of an image that are computed closely, with what a network needs around them.

A region is an aligned square of cells that is chosen as one. What regions cost depends on one another: the
margins of neighbours overlap, and coarse tiles end where a region begins. So regions are taken in the order
of their scores for as long as the whole fits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.geometry.plan import SKIP
from foveal.geometry.squares import group_squares, sum_squares

PROBES = 16
"""Choices whose tiles are counted at once."""
ROUNDS = 4
"""Times that so many of the regions after the last one are tried, whether one of them still fits."""


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
        """Return the level of every cell [N, Gh, Gw], int8, where cells are chosen [N, Gh, Gw], bool."""
        near = chosen
        if self.margin:
            near = F.max_pool2d(chosen[:, None].float(), 2 * self.margin + 1, 1, self.margin)[:, 0] > 0
        if self.level == SKIP:
            return torch.where(near, 0, SKIP).to(torch.int8)
        levels = torch.zeros(chosen.shape, dtype=torch.int8)
        for level in range(1, self.level + 1):  # squares without a chosen cell lie in smaller ones without
            free = ~group_squares(near, 2**level).any(-1)
            levels[_spread(free, 2**level, near)] = level
        return torch.where(chosen.any(2).any(1)[:, None, None], levels, SKIP).to(torch.int8)

    def used(self, chosen: Tensor, levels: Tensor) -> Tensor:
        """Say which cells [N, Gh, Gw] get the close answer: those chosen; without a margin all at level 0.

        Beside coarse tiles some cells come to level 0 because a chosen one lies in their square; without a
        margin their answer is as good.
        """
        return chosen if self.margin else levels == 0

    def rates(self, scores: Tensor) -> Tensor:
        """Return the mean score [rows, columns] of the cells [Gh, Gw] of every region."""
        return sum_squares(scores, self.side) / sum_squares(torch.ones_like(scores), self.side)

    def best(self, scores: Tensor, count: int) -> Tensor:
        """Choose the `count` regions of the highest mean score; return their cells [Gh, Gw], bool."""
        ranks = _ranks(self.rates(scores))
        return _spread((ranks < count)[None], self.side, scores)[0]

    def choose(self, scores: Tensor, tiles: float, threshold: float | None = None) -> Tensor:
        """Choose regions in falling order of their mean score, as far as all that is computed fits.

        Some of those after the first that does not fit are tried too. Equals come in reading order.

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
        ranks = _ranks(rates)
        most = rates.numel() if threshold is None else int((rates >= threshold).sum())

        low, high = 0, most + 1  # so many first ones fit, and so many do not, or there are none
        while high - low > 1:
            probes = torch.linspace(low + 1, high - 1, min(PROBES, high - low - 1)).long()
            fits = self._fit(ranks < probes[:, None, None], scores, tiles)
            low, high = max([low, *probes[fits].tolist()]), min([high, *probes[~fits].tolist()])

        chosen, after = ranks < low, low + 1
        for _ in range(ROUNDS):
            last = min(after + PROBES, most)
            if after >= last:
                break
            more = ranks == torch.arange(after, last)[:, None, None]
            fits = self._fit(chosen | more, scores, tiles)
            first = int(fits.int().argmax()) if bool(fits.any()) else last - after
            chosen = chosen | more[first] if first < last - after else chosen
            after += first + 1
        return _spread(chosen[None], self.side, scores)[0]

    def _fit(self, chosen: Tensor, like: Tensor, tiles: float) -> Tensor:
        """Say of several choices of regions [N, rows, columns] whether they fit [N]."""
        return count_tiles(self.levels(_spread(chosen, self.side, like))) <= tiles


def count_tiles(levels: Tensor) -> Tensor:
    """Count the tiles [N] of plans, by the level of every cell [N, Gh, Gw]."""
    found = torch.zeros(len(levels), dtype=torch.int64)
    for level in range(int(levels.max()) + 1):
        found += (levels[:, :: 2**level, :: 2**level] == level).sum((1, 2))
    return found


def _ranks(rates: Tensor) -> Tensor:
    """Return the place of every entry in falling order, shaped like them; equals in reading order."""
    order = rates.flatten().argsort(descending=True, stable=True)
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order))
    return ranks.view(rates.shape)


def _spread(x: Tensor, side: int, like: Tensor) -> Tensor:
    """Repeat every entry [N, rows, columns] over a square of `side`, cut to the sides of `like`."""
    wide = x.repeat_interleave(side, 1).repeat_interleave(side, 2) if side > 1 else x
    return wide[:, : like.shape[-2], : like.shape[-1]]
