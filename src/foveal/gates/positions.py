"""Lists of positions: which samples of every map of a unit are computed, and where windows find them.

All of it is arithmetic with whole numbers on small arrays, one image at a time, on the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveal.gates.units import Layer

Mask = NDArray[np.bool_]
Size = tuple[int, int]
NEVER = np.iinfo(np.int32).max
"""Rank of what no window sees."""
ROUNDING = 1e-12
"""Shares of work that differ by less are equal."""


class Choice(NamedTuple):
    """Where a unit is computed.

    Attributes:
        masks: Which samples of the result of every layer are computed, first to last.
        work: Share of the dense network's work.
    """

    masks: tuple[Mask, ...]
    work: float


class Branch(NamedTuple):
    """The branch of a unit, on a map of some size.

    Attributes:
        layers: Its convolutions.
        shares: Share of the dense network's work of every layer, where all of it is computed.
        sizes: Sides of the result of every layer [samples].
    """

    layers: tuple[Layer, ...]
    shares: tuple[float, ...]
    sizes: tuple[Size, ...]

    @classmethod
    def on(cls, size: Size, layers: tuple[Layer, ...], shares: tuple[float, ...]) -> Branch:
        """Lay a branch over a map of `size`, which its first layer reads."""
        sizes = list[Size]()
        for layer in layers:
            size = -(-size[0] // layer.stride), -(-size[1] // layer.stride)
            sizes.append(size)
        return cls(layers, shares, tuple(sizes))

    def behind(self, values: NDArray[Any], join: Any, nothing: Any) -> list[NDArray[Any]]:
        """Give every layer the joined values of those positions [p, q] of the result that its own lead to.

        Returns:
            One array per layer, first to last; the last one is `values`.
        """
        found = [values]
        for layer, size in zip(reversed(self.layers[1:]), reversed(self.sizes[:-1]), strict=True):
            found.insert(0, _through(found[0], layer, size, join, nothing))
        return found


def open_where(mask: Mask, branch: Branch) -> Choice:
    """Compute a unit where a mask [p, q] of the positions of its result says."""
    masks = branch.behind(mask, np.logical_or, False)
    parts = [share * np.count_nonzero(m) / m.size for share, m in zip(branch.shares, masks, strict=True)]
    return Choice(tuple(masks), float(sum(parts)))


def open_best(
    scores: NDArray[Any], side: int, branch: Branch, allowed: float, most: int | None = None
) -> Choice:
    """Compute a unit where scores are highest, within a share of the work; of equal ones the first ones.

    Args:
        scores: Of the positions of the unit's result [p, q], alike within squares.
        side: Positions on the side of a square that is decided as one.
        branch: What computes it.
        allowed: Share of the dense network's work that may be spent.
        most: Squares that may be open; all if absent.
    """
    ranks = branch.behind(_ranks(scores, side), np.minimum, NEVER)
    count = int(ranks[-1].max()) + 1
    work = np.zeros(count)
    for share, rank in zip(branch.shares, ranks, strict=True):
        work += share / rank.size * np.bincount(rank[rank < count], minlength=count)
    work = work.cumsum()
    chosen = int(np.searchsorted(work, allowed + ROUNDING, side="right"))
    chosen = chosen if most is None else min(chosen, most)
    spent = float(work[chosen - 1]) if chosen else 0.0
    return Choice(tuple(rank < chosen for rank in ranks), spent)


def _ranks(scores: NDArray[Any], side: int) -> NDArray[np.int32]:
    """Number squares by their scores, from 0 for the highest; return the number of every position."""
    coarse = np.ascontiguousarray(scores[::side, ::side], dtype=np.float32) + np.float32(0)  # no -0.0
    bits = coarse.view(np.int32).ravel().astype(np.int64)
    ordered = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # whole numbers in the order of the scores
    order = np.sort((-ordered << 32) + np.arange(bits.size)) & 0xFFFFFFFF
    numbers = np.empty(bits.size, np.int32)
    numbers[order] = np.arange(bits.size, dtype=np.int32)
    ranks = numbers.reshape(coarse.shape)
    if side == 1:
        return ranks
    return ranks.repeat(side, 0).repeat(side, 1)[: scores.shape[0], : scores.shape[1]]


def _through(values: NDArray[Any], layer: Layer, size: Size, join: Any, nothing: Any) -> NDArray[Any]:
    """Give every sample [h, w] that windows see the joined values [p, q] of these windows."""
    for axis in (0, 1):
        if layer.kernel[axis] == layer.stride == 1:
            continue
        values = values if axis == 0 else values.T
        count, step, reach = len(values), layer.stride, layer.dilation * (layer.kernel[axis] - 1)
        before = layer.padding[axis]
        wide = np.full((max(size[axis] + before, (count - 1) * step + reach + 1), values.shape[1]), nothing)
        wide = wide.astype(values.dtype)
        for tap in range(0, reach + 1, layer.dilation):
            part = wide[tap : tap + (count - 1) * step + 1 : step]
            join(part, values, out=part)
        wide = wide[before : before + size[axis]]
        values = wide if axis == 0 else np.ascontiguousarray(wide.T)
    return values


class Price(NamedTuple):
    """What squares of a side cost, in any unit: each of them, and all together, however few there are."""

    each: float
    all: float

    def of(self, count: int) -> float:
        """Return the price of `count` squares."""
        return self.each * count + self.all if count else 0.0


SIDES = ((1, 2, 4), (2, 4), (4,), (1,))
"""Sides of the squares of a cover that may be the cheapest: more sides cover less, and read more weights."""
ENOUGH = 6.0
"""Price in weights from which other covers are not tried."""


class Squares(NamedTuple):
    """Squares of a map: where they begin [n], and their side."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    side: int

    @classmethod
    def at(cls, cells: Mask, side: int) -> Squares:
        """Take the cells of a grid that a mask [h / side, w / side] has."""
        rows, columns = np.nonzero(cells)
        return cls(rows * side, columns * side, side)

    @property
    def samples(self) -> int:
        """Count the samples in all of them."""
        return len(self.rows) * self.side**2

    def patches(self, bordered: NDArray[np.int32], layer: Layer) -> Tensor:
        """Say which rows the windows of the squares read [n, P, Q], int32; of a map from `border`."""
        sides = [(self.side - 1) * layer.stride + layer.dilation * (k - 1) + 1 for k in layer.kernel]
        across = bordered.shape[1]
        inner = np.arange(sides[0])[:, None] * across + np.arange(sides[1])
        starts = (self.rows * across + self.columns) * layer.stride
        return torch.from_numpy(bordered.ravel().take(starts[:, None, None] + inner))


def border(where: NDArray[np.int32], layer: Layer) -> NDArray[np.int32]:
    """Put -1 around the rows of a map [h, w], as far as the windows of any square of its result reach."""
    (top, left), after = layer.padding, 3 * layer.stride + layer.dilation * (max(layer.kernel) - 1)
    height, width = where.shape
    wide = np.full((top + height + after, left + width + after), -1, np.int32)
    wide[top : top + height, left : left + width] = where
    return wide


def cover(mask: Mask, prices: Mapping[int, Price]) -> list[Squares]:
    """Cover a mask with squares of several sides at the least price, every cell of 4 x 4 by itself.

    Args:
        mask: Samples [h, w].
        prices: By the side of squares, 1 alone or 1, 2 and 4.

    Returns:
        Squares by side, the largest first; none of a side that does not occur.
    """
    if len(prices) == 1:
        found = [Squares.at(mask, 1)]
        return [squares for squares in found if len(squares.rows)]
    height, width = mask.shape
    wide = np.zeros((height - height % -4, width - width % -4), bool)
    wide[:height, :width] = mask
    best = _covered(wide, prices, SIDES[0])
    least = sum(prices[squares.side].all for squares in best)
    if sum(prices[squares.side].of(len(squares.rows)) for squares in best) > ENOUGH * least:
        return best  # what the weights cost makes no difference
    covers = [best, *(_covered(wide, prices, sides) for sides in SIDES[1:])]
    return min(covers, key=lambda found: sum(prices[s.side].of(len(s.rows)) for s in found))


def _covered(mask: Mask, prices: Mapping[int, Price], sides: Sequence[int]) -> list[Squares]:
    """Cover a mask, its sides multiples of 4, with squares of some sides; 4 is among them, or 1 alone."""
    if sides == (1,):
        return [squares for squares in (Squares.at(mask, 1),) if len(squares.rows)]
    counts = _sums(mask)
    single = (
        prices[1].each * counts if 1 in sides else np.where(counts > 0, np.float32(np.inf), np.float32(0))
    )
    double = (
        prices[2].each * (counts > 0)
        if 2 in sides
        else np.where(counts > 0, np.float32(np.inf), np.float32(0))
    )
    large = _sums(np.minimum(single, double)) > prices[4].each
    inner = ~_doubled(large)
    found = [Squares.at(large, 4), Squares.at((single > double) & inner, 2)]
    found.append(Squares.at(mask & _doubled((single <= double) & inner), 1))
    return [squares for squares in found if len(squares.rows)]


def numbered(cover: Sequence[Squares], size: Size) -> NDArray[np.int32]:
    """Number the samples of squares in order; return the number of every sample of a map, -1 for none."""
    across, first = size[1] + 4, 0
    where = np.full((size[0] + 4) * across, -1, np.int32)
    for squares in cover:
        side = squares.side
        inner = (np.arange(side)[:, None] * across + np.arange(side)).ravel()
        places = (squares.rows * across + squares.columns)[:, None] + inner
        where[places.ravel()] = np.arange(first, first + squares.samples, dtype=np.int32)
        first += squares.samples
    return where.reshape(-1, across)[: size[0], : size[1]]


def _sums(values: NDArray[Any]) -> NDArray[Any]:
    """Add up squares of 2 x 2."""
    rows = values[::2].astype(np.float32) + values[1::2]
    return rows[:, ::2] + rows[:, 1::2]


def _doubled(cells: Mask) -> Mask:
    """Give every cell's value to the 2 x 2 cells in it."""
    return cells.repeat(2, 0).repeat(2, 1)
