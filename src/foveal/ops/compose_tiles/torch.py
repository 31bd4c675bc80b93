"""A dense map by one block write a level, coarsest first, channels last."""

from __future__ import annotations

from torch import Tensor

from foveal.geometry.layout import Halo, Layout
from foveal.geometry.level_tiles import level_tiles
from foveal.ops.compose_tiles.spec import enlarged
from foveal.ops.fetch_halo import fetch_halo


def run(tiles: Tensor, layout: Layout, base: int = 0) -> Tensor:
    """As the reference."""
    side, channels, layout = tiles.shape[2], tiles.shape[1], layout.everything
    height, width = layout.extent(side, base)
    block = side << (max(layout.levels, default=base) - base)
    canvas = tiles.new_zeros(layout.images, -(-height // block) * block, -(-width // block) * block, channels)
    coarser = bool(layout.levels) and layout.levels[-1] > base
    bordered = fetch_halo(tiles, layout, Halo.around(1, "edge")) if coarser else tiles
    for level in reversed(layout.levels):
        chosen = level_tiles(layout, level, tiles.device)
        factor = 1 << (level - base)
        patches = tiles[chosen.number] if factor == 1 else enlarged(bordered[chosen.number], factor)
        spots = canvas.unflatten(2, (-1, side * factor)).unflatten(1, (-1, side * factor)).transpose(2, 3)
        spots[chosen.image, chosen.row, chosen.column] = patches.permute(0, 2, 3, 1)
    return canvas[:, :height, :width].permute(0, 3, 1, 2)
