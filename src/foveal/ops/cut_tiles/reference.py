"""Tiles taken one by one from the maps of all levels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.geometry.layout import Layout
from foveal.ops.halve import halve


def run(x: Tensor, layout: Layout, side: int, base: int = 0) -> Tensor:
    """Cut a dense map into the tiles that are computed now.

    Args:
        x: Map at level `base` [N, C, H, W]; H and W are the layout's extent there.
        layout: Where the tiles lie; no level is finer than `base`.
        side: Samples on a tile's side.
        base: Level of the map.

    Returns:
        Tiles [B, C, side, side].
    """
    maps = [x]
    for _ in range(max(layout.levels, default=base) - base):
        maps.append(halve(maps[-1]))
    tiles = []
    for n, level, row, column in _places(layout):
        window = maps[level - base][n, :, row * side >> level :, column * side >> level :][:, :side, :side]
        tiles.append(F.pad(window, (0, side - window.shape[2], 0, side - window.shape[1])))
    return torch.stack(tiles) if tiles else x.new_zeros(0, x.shape[1], side, side)


def _places(layout: Layout) -> list[list[int]]:
    places = torch.stack([layout.image, layout.level, layout.row, layout.column], 1)
    return places[: layout.computed].tolist()
