"""Small forests of tiles with gains and costs, and all their closed sets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, cached_property
from random import Random

import torch
from hypothesis import strategies as st
from torch import Tensor

from foveal.geometry.planner import rates
from strategies import sources

Shapes = tuple[tuple[int, int], ...]


def shapes_of(rows: int, columns: int, levels: int) -> Shapes:
    """Coarsest first, each half of the next one, rounded up."""
    return tuple((-(-rows >> k), -(-columns >> k)) for k in range(levels - 1, -1, -1))


def nodes(shapes: Shapes) -> int:
    return sum(rows * columns for rows, columns in shapes)


SMALL = [
    shapes
    for rows in range(1, 6)
    for columns in range(1, 6)
    for levels in (1, 2, 3)
    if nodes(shapes := shapes_of(rows, columns, levels)) <= 13
]


@cache
def closed_sets(shapes: Shapes) -> Tensor:
    """All sets of nodes in which none is without its parent [sets, nodes], by trying every set."""
    places = [(k, i, j) for k, (r, c) in enumerate(shapes) for i in range(r) for j in range(c)]
    sets = (torch.arange(2 ** len(places))[:, None] >> torch.arange(len(places))) & 1 == 1
    for child, (k, i, j) in enumerate(places):
        if k:
            sets = sets[~sets[:, child] | sets[:, places.index((k - 1, i // 2, j // 2))]]
    return sets


class Case:
    """A small forest with gains and costs that sums do not round."""

    def __init__(self, source: Random, shapes: Shapes | None = None) -> None:
        self.shapes = source.choice(SMALL) if shapes is None else shapes
        least, most = source.choice([(-3, 6), (0, 5), (0, 1), (1, 1), (-4, 0)])
        free = source.choice([0, 1])
        self.gains = [self._map(s, lambda: source.randint(least, most)) for s in self.shapes]
        prices = [source.choice([0.5, 1.0, 1.75]) for _ in self.shapes]
        self.costs = [
            self._map(s, lambda p=p: p * source.randint(1 - free, 3))
            for p, s in zip(prices, self.shapes, strict=True)
        ]

    @staticmethod
    def _map(shape: tuple[int, int], number: object) -> Tensor:
        assert callable(number)
        return torch.tensor([[float(number()) for _ in range(shape[1])] for _ in range(shape[0])])

    @cached_property
    def rates(self) -> list[Tensor]:
        return rates(self.gains, self.costs)

    @property
    def corners(self) -> list[float]:
        """All rates that are numbers, largest first."""
        return sorted({x for x in flat(self.rates).tolist() if math.isfinite(x)}, reverse=True)

    @cached_property
    def all_gains(self) -> Tensor:
        return closed_sets(self.shapes).double() @ flat(self.gains)

    @cached_property
    def all_costs(self) -> Tensor:
        return closed_sets(self.shapes).double() @ flat(self.costs)

    def gain(self, masks: Sequence[Tensor]) -> float:
        return float(flat(self.gains)[flat(masks)].sum())

    def cost(self, masks: Sequence[Tensor]) -> float:
        return float(flat(self.costs)[flat(masks)].sum())

    def is_closed(self, masks: Sequence[Tensor]) -> bool:
        return bool((closed_sets(self.shapes) == flat(masks)).all(1).any())

    def most(self, cost: float) -> float:
        """Largest gain of all sets of at most this cost."""
        return float(self.all_gains[self.all_costs <= cost].max())


def flat(maps: Sequence[Tensor]) -> Tensor:
    x = torch.cat([m.flatten() for m in maps])
    return x if x.dtype == torch.bool else x.double()


def cases() -> st.SearchStrategy[Case]:
    return sources().map(Case)


def within(inner: Sequence[Tensor], outer: Sequence[Tensor]) -> bool:
    return not bool((flat(inner) & ~flat(outer)).any())
