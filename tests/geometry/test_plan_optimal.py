"""At the corners of the hull no plan of as many tiles gains more, by trying every plan."""

from __future__ import annotations

import math
from itertools import product
from random import Random

import torch
from hypothesis import given, settings
from torch import Tensor

from foveal.geometry.plan import Plan
from strategies import sources


def quadtrees(shape: tuple[int, int], max_level: int) -> Tensor:
    """All levels [P, *shape] that one image can have from `max_level` on, by trying every split."""
    squares = [torch.zeros(1, 1, dtype=torch.long)]
    for level in range(1, max_level + 1):
        split = [torch.cat([torch.cat(q[:2], 1), torch.cat(q[2:], 1)]) for q in product(squares, repeat=4)]
        squares = [torch.full_like(split[0], level), *split]
    rows, columns = (-(-cells >> max_level) for cells in shape)
    found = []
    for q in product(squares, repeat=rows * columns):
        found.append(torch.cat([torch.cat(q[i * columns : (i + 1) * columns], 1) for i in range(rows)]))
    return torch.stack(found)[:, : shape[0], : shape[1]]


def gain_of(levels: Tensor, scores: Tensor) -> Tensor:
    """Gain [P] of levels [P, Gh, Gw], given the scores of every step [L, Gh, Gw] or [L, P, Gh, Gw]."""
    steps = torch.stack([levels <= k for k in range(len(scores))])
    return (steps * scores.view(len(scores), -1, *levels.shape[1:])).sum((0, 2, 3))


def corners(tiles: Tensor, gain: Tensor) -> list[tuple[int, float]]:
    """Corners of the concave hull of gain over tiles, up to the largest gain."""
    points = sorted(set(zip(tiles.tolist(), gain.tolist(), strict=True)), key=lambda p: (p[0], -p[1]))
    hull = [points[0]]
    while later := [p for p in points if p[0] > hull[-1][0] and p[1] > hull[-1][1]]:
        slope = {p: (p[1] - hull[-1][1]) / (p[0] - hull[-1][0]) for p in later}
        hull.append(max(later, key=lambda p: (slope[p], p[0])))
    return hull


def random_scores(source: Random, shape: tuple[int, ...]) -> Tensor:
    """Whole numbers, so that sums and comparisons are exact."""
    least, most = source.choice([(0, 5), (-2, 6), (0, 1)])
    generator = torch.Generator().manual_seed(source.randint(0, 2**30))
    return torch.randint(least, most + 1, shape, generator=generator).double()


CELLS = [(2, 2), (2, 3), (4, 4), (3, 4), (3, 8), (5, 3)]


@settings(max_examples=60)
@given(source=sources())
def test_at_a_corner_of_the_hull_no_plan_of_as_many_tiles_gains_more(source: Random) -> None:
    shape, max_level = source.choice(CELLS), source.randint(1, 2)
    size = 8 * shape[0] - source.randint(0, 7), 8 * shape[1] - source.randint(0, 7)
    scores = random_scores(source, (max_level, *shape))
    every = Plan(quadtrees(shape, max_level), 8, size)
    for tiles, gain in corners(every.tiles, gain_of(every.levels, scores)):
        budget = (
            (tiles - 0.5) * 64 / (size[0] * size[1])
        )  # one tile more is allowed, so this is half too many
        if budget < 1:
            plan = Plan.from_scores(scores[:, None], 8, size, budget, max_level)
            assert (int(plan.tiles), float(gain_of(plan.levels, scores))) == (tiles, gain)


@settings(max_examples=40)
@given(source=sources())
def test_at_a_corner_of_the_hull_no_shared_plan_of_as_many_tiles_gains_more(source: Random) -> None:
    shape, max_level = source.choice(CELLS[:4]), source.randint(1, 2)
    size = 8 * shape[0], 8 * shape[1]
    scores = random_scores(source, (max_level, 2, *shape))
    every = Plan(quadtrees(shape, max_level), 8, size)
    first, second = (gain_of(every.levels, scores[:, n]) for n in range(2))
    tiles_of_both = (every.tiles[:, None] + every.tiles).flatten()
    for tiles, gain in corners(tiles_of_both, (first[:, None] + second).flatten()):
        budget = (tiles - 0.5) / (2 * math.prod(shape))
        if budget < 1:
            plan = Plan.shared(scores, 8, size, budget, max_level)
            assert (int(plan.tiles.sum()), float(gain_of(plan.levels, scores).sum())) == (tiles, gain)
