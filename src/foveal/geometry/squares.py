"""Aligned squares of a grid: the cells of a coarser tile, the children of a node."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def group_squares(mask: Tensor, side: int) -> Tensor:
    """Group cells by aligned squares.

    Args:
        mask: Cells [N, Gh, Gw], bool.
        side: Cells on a square's side.

    Returns:
        [N, rows, columns, side * side]; cells beyond the grid are true where any cell of their square is.
    """
    rows, columns = mask.shape[1:]
    inside = F.pad(torch.ones_like(mask), (0, -columns % side, 0, -rows % side))
    mask = F.pad(mask, (0, -columns % side, 0, -rows % side))
    mask, inside = (x.unflatten(2, (-1, side)).unflatten(1, (-1, side)) for x in (mask, inside))
    mask, inside = (x.transpose(2, 3).flatten(3) for x in (mask, inside))
    return torch.where(inside, mask, mask.any(-1, keepdim=True))


def sum_squares(x: Tensor, side: int) -> Tensor:
    """Sum [H, W] over aligned squares [H / side, W / side], rounded up; the last ones may be cut."""
    x = F.pad(x, (0, -x.shape[1] % side, 0, -x.shape[0] % side))
    return x.unflatten(1, (-1, side)).unflatten(0, (-1, side)).sum((1, 3))
