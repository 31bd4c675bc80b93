"""Plans that networks are tried with."""

from __future__ import annotations

import torch

from foveal.geometry.plan import Plan, grid


def two_levels(size: tuple[int, int], tile: int) -> Plan:
    """Return a plan of one image: level 0, and one corner at level 1 if there is room."""
    rows, columns = grid(size, tile)
    levels = torch.zeros(1, rows, columns, dtype=torch.int8)
    if rows * columns > 4:
        levels[:, :2, :2] = 1
    return Plan(levels, tile, size)


def mixed_levels(size: tuple[int, int], tile: int, top: int, source: torch.Generator) -> Plan:
    """Split tiles of two images at random, from a level down; every image gets two levels at least."""
    rows, columns = grid(size, tile)
    levels = torch.full((2, rows, columns), top, dtype=torch.int8)
    for level in range(top, 0, -1):
        blocks = torch.rand(2, -(-rows >> level), -(-columns >> level), generator=source) < 0.5
        blocks[:, 0, 0], blocks[:, -1, -1] = level == top, level != top
        spread = blocks.repeat_interleave(1 << level, 1).repeat_interleave(1 << level, 2)
        levels[(levels == level) & spread[:, :rows, :columns]] = level - 1
    return Plan(levels, tile, size)
