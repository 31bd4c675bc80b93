"""Tiles by one block view and one gather a level, channels last."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from foveal.geometry.layout import Layout
from foveal.geometry.level_tiles import level_tiles
from foveal.ops.halve import halve


def run(x: Tensor, layout: Layout, side: int, base: int = 0) -> Tensor:
    """As the reference."""
    out = x.new_empty(layout.computed, side, side, x.shape[1])
    for level in range(base, max(layout.levels, default=base) + 1):
        x = x if level == base else halve(x)
        chosen = level_tiles(layout, level, x.device)
        if len(chosen.number):
            out[chosen.number] = _blocks(x, side)[chosen.image, chosen.row, chosen.column]
    return out.permute(0, 3, 1, 2)


def _blocks(x: Tensor, side: int) -> Tensor:
    """View a map [N, C, H, W] as blocks [N, rows, columns, side, side, C], zeros added at the end."""
    height, width = x.shape[2:]
    x = F.pad(x, (0, -width % side, 0, -height % side))
    x = x.unflatten(3, (-1, side)).unflatten(2, (-1, side))
    return x.permute(0, 2, 4, 3, 5, 1)
