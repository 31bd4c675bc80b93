"""Random plans, halos and layouts for property-based tests."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor

from foveal.geometry.layout import Halo, Layout
from foveal.geometry.plan import SKIP, Plan, grid
from foveal.tiles import Memory
from foveal.tiles.memory import join


def random_plan(
    source: random.Random, images: int, size: tuple[int, int], tile: int, max_level: int, skip: float = 0.0
) -> Plan:
    """Split squares at random from `max_level` on down, and skip a share of the tiles."""
    rows, columns = grid(size, tile)
    levels = torch.zeros(images, rows, columns, dtype=torch.int8)

    def fill(n: int, level: int, row: int, column: int) -> None:
        if row >= rows or column >= columns:
            return
        if level and source.random() < 0.55:
            half = 1 << (level - 1)
            for y, x in ((0, 0), (0, half), (half, 0), (half, half)):
                fill(n, level - 1, row + y, column + x)
        else:
            value = SKIP if source.random() < skip else level
            levels[n, row : row + (1 << level), column : column + (1 << level)] = value

    step = 1 << max_level
    for n in range(images):
        for row in range(0, rows, step):
            for column in range(0, columns, step):
                fill(n, max_level, row, column)
    return Plan(levels, tile, size)


def sources() -> st.SearchStrategy[random.Random]:
    """Sources of random numbers.

    A plan has too many parts to be drawn one by one: hypothesis would try hundreds of tiny ones.
    """
    return st.integers(0, 2**32).map(random.Random)


def sizes(tile: int, cells: int = 5) -> st.SearchStrategy[tuple[int, int]]:
    """Ragged heights and widths of up to `cells` cells."""
    return sources().map(lambda source: random_size(source, tile, cells))


def random_size(source: random.Random, tile: int, cells: int) -> tuple[int, int]:
    """One pixel now and then, whole cells now and then, else any size."""
    choices = [1, tile * source.randint(1, cells)] + [source.randint(1, tile * cells) for _ in range(4)]
    return source.choice(choices), source.choice(choices)


@st.composite
def plans(
    draw: st.DrawFn,
    tiles: Sequence[int] = (4, 8),
    max_level: int = 3,
    cells: int = 5,
    skip: bool = False,
    images: int = 3,
) -> Plan:
    """Valid quadtrees over ragged images: up to `max_level` + 1 levels, 1 to `images` images."""
    source = draw(sources())
    tile = source.choice(tiles)
    size = random_size(source, tile, cells)
    share = source.choice([0.0, 0.5, 0.5, 0.8, 1.0]) if skip else 0.0
    return random_plan(source, source.randint(1, images), size, tile, source.randint(0, max_level), share)


@st.composite
def layouts(draw: st.DrawFn, tiles: Sequence[int] = (4, 8, 12)) -> Layout:
    """Layouts with tiles computed now, tiles kept from up to two passes, and places without a tile."""
    plan, source = draw(plans(tiles, skip=True)), draw(sources())
    layout = plan.layout
    for _ in range(source.randint(0, 2)):
        later = random_plan(source, len(plan.levels), plan.size, plan.tile, source.randint(0, 3), skip=0.6)
        layout, _ = join(later.layout, Memory(layout.everything, ()))
    return layout


def sides(tile: int) -> st.SearchStrategy[int]:
    """Sides that a tile has at some stride."""
    return st.sampled_from([side for side in range(1, tile + 1) if tile % side == 0])


def halos(widest: int = 7) -> st.SearchStrategy[Halo]:
    """Halos of different widths on the four sides, with every filling."""
    return sources().map(
        lambda source: Halo(
            *(source.choice([0, source.randint(1, widest)]) for _ in range(4)),
            fill=source.choice(["zero", "lowest", "edge"]),
        )
    )


def random_tiles(layout: Layout, side: int, channels: int = 2) -> tuple[Tensor, Tensor | None]:
    """Random tiles computed now, and those kept from before (None if there are none)."""
    fresh, old = layout.computed, len(layout) - layout.computed
    tiles = torch.randn(fresh, channels, side, side, dtype=torch.float64, requires_grad=True)
    kept = torch.randn(old, channels, side, side, dtype=torch.float64, requires_grad=True)
    return tiles, kept if old else None
