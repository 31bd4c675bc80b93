"""A dense map painted tile by tile, coarsest first."""

from __future__ import annotations

import torch
from torch import Tensor

from foveal.geometry.layout import Halo, Layout
from foveal.ops.compose_tiles.spec import enlarged
from foveal.ops.fetch_halo import fetch_halo


def run(tiles: Tensor, layout: Layout, base: int = 0) -> Tensor:
    """Compose the tiles of a layout, kept ones included.

    Args:
        tiles: All tiles of the layout [B, C, side, side].
        layout: Where they lie; no level is finer than `base`.
        base: Level of the map.

    Returns:
        Map [N, C, H, W] with the extent of the image at `base`; 0 where nothing is known.
    """
    side, layout = tiles.shape[2], layout.everything
    bordered = fetch_halo(tiles, layout, Halo.around(1, "edge"), backend="reference")
    height, width = layout.extent(side, base)
    out = tiles.new_zeros(layout.images, tiles.shape[1], height, width)
    for b in torch.argsort(layout.level, descending=True, stable=True).tolist():
        level, factor = int(layout.level[b]), 1 << (int(layout.level[b]) - base)
        patch = tiles[b] if factor == 1 else enlarged(bordered[b : b + 1], factor)[0]
        top, left = (int(first[b]) * side // (1 << level) * factor for first in (layout.row, layout.column))
        rows, columns = min(side * factor, height - top), min(side * factor, width - left)
        canvas = out.clone()
        canvas[layout.image[b], :, top : top + rows, left : left + columns] = patch[:, :rows, :columns]
        out = canvas
    return out
