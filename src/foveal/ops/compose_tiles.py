"""Put tiles of all levels together into one dense map.

Tiles coarser than the map are upsampled bilinearly, with borders from their neighbours, so that there are no
seams. Tiles finer than the map are not allowed: the caller picks the level of the map.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.geometry.layout import Halo, Layout
from foveal.kernels.abi import Address, Places, Source, usable
from foveal.kernels.build import loaded, tell
from foveal.kernels.workspace import empty
from foveal.ops.fetch_halo import fetch_halo
from foveal.ops.op import Op


def reference(tiles: Tensor, layout: Layout, base: int = 0) -> Tensor:
    """Compose the tiles of a layout, kept ones included.

    Args:
        tiles: All tiles of the layout [B, C, side, side].
        layout: Where they lie; no level is finer than `base`.
        base: Level of the map.

    Returns:
        Map [N, C, H, W] with the extent of the image at `base`; 0 where nothing is known.
    """
    side, layout = tiles.shape[2], layout.everything
    bordered = fetch_halo(tiles, layout, Halo.around(1, "edge"), impl="reference")
    height, width = layout.extent(side, base)
    out = tiles.new_zeros(layout.images, tiles.shape[1], height, width)
    for b in torch.argsort(layout.level, descending=True, stable=True).tolist():
        level, factor = int(layout.level[b]), 1 << (int(layout.level[b]) - base)
        patch = tiles[b] if factor == 1 else _enlarge(bordered[b : b + 1], factor)[0]
        top, left = (int(first[b]) * side // (1 << level) * factor for first in (layout.row, layout.column))
        rows, columns = min(side * factor, height - top), min(side * factor, width - left)
        canvas = out.clone()
        canvas[layout.image[b], :, top : top + rows, left : left + columns] = patch[:, :rows, :columns]
        out = canvas
    return out


def cpu(tiles: Tensor, layout: Layout, base: int = 0) -> Tensor:
    """As the reference: one block write a level, coarsest first, channels last."""
    side, channels, layout = tiles.shape[2], tiles.shape[1], layout.everything
    height, width = layout.extent(side, base)
    block = side << (max(layout.levels, default=base) - base)
    canvas = tiles.new_zeros(layout.images, -(-height // block) * block, -(-width // block) * block, channels)
    coarser = bool(layout.levels) and layout.levels[-1] > base
    bordered = fetch_halo(tiles, layout, Halo.around(1, "edge")) if coarser else tiles
    for level in reversed(layout.levels):
        chosen = (layout.level == level).nonzero().squeeze(1)
        factor = 1 << (level - base)
        patches = tiles[chosen] if factor == 1 else _enlarge(bordered[chosen], factor)
        spots = canvas.unflatten(2, (-1, side * factor)).unflatten(1, (-1, side * factor)).transpose(2, 3)
        place = layout.image[chosen], layout.row[chosen] >> level, layout.column[chosen] >> level
        spots[place] = patches.permute(0, 2, 3, 1)
    return canvas[:, :height, :width].permute(0, 3, 1, 2)


def _enlarge(bordered: Tensor, factor: int) -> Tensor:
    """Upsample tiles with a border of 1 bilinearly; the border goes."""
    x = F.interpolate(bordered, scale_factor=factor, mode="bilinear", align_corners=False)
    return x[:, :, factor:-factor, factor:-factor]


def native(tiles: Tensor, layout: Layout, base: int = 0) -> Tensor:
    """As the reference, in C: every tile is enlarged where it lies."""
    layout, side = layout.everything, tiles.shape[2]
    height, width = layout.extent(side, base)
    source = Source(tiles, layout, 1, "edge")
    out = empty(layout.images, height, width, tiles.shape[1])
    if bool((layout.owner < 0).any()):
        out.zero_()
    tell("interpolation", 4 * tiles.shape[1] * sum(_enlarged(layout, side, base)))
    lists = [v.contiguous() for v in (layout.image, layout.level, layout.row, layout.column)]
    places = Places(*(v.data_ptr() for v in lists), len(layout), height, width, tiles.shape[1], side, base)
    owner = layout.owner.contiguous()
    loaded().foveal_compose(
        ctypes.byref(places),
        ctypes.byref(source.struct()),
        Address(owner.data_ptr()),
        *owner.shape[1:],
        Address(out.data_ptr()),
    )
    return out.permute(0, 3, 1, 2)


def _enlarged(layout: Layout, side: int, base: int) -> list[int]:
    """Samples that tiles of every coarser level are enlarged to."""
    counts = torch.bincount(layout.level).tolist()
    return [n * (side << (level - base)) ** 2 for level, n in enumerate(counts) if level > base]


def _fits(tiles: Tensor, layout: Layout, *rest: object) -> bool:
    return usable(tiles, layout)


compose_tiles = Op(reference, _fits, cpu=cpu, native=native)
