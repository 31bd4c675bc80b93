"""Choosing tiles one by one, on a heap."""

from __future__ import annotations

from torch import Tensor

from foveal.geometry.compact import choose_compact


def run(values: Tensor, is_open: Tensor, isolated: float, count: int) -> Tensor:
    """Choose up to `count` of the open tiles: mask [rows, columns], on the CPU.

    Args:
        values: What a tile gains if all its neighbours are refined [rows, columns], 0 or more where open.
        is_open: Whether it can be chosen [rows, columns], bool.
        isolated: Share of its gain that a tile has if no neighbour is refined, 0 to 1.
        count: How many.
    """
    return choose_compact(values.cpu(), is_open.cpu(), isolated, count)
