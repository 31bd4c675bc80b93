"""Cut a dense map into tiles: every tile holds the mean of the map over its samples.

A sample of a level-l tile is the mean of the four samples one level finer, of those that lie in the image.
Samples outside the image are 0.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.geometry.layout import Layout
from foveal.kernels.abi import Address, Places, as_rows, usable
from foveal.kernels.build import loaded
from foveal.kernels.workspace import empty
from foveal.ops.op import Op


def _halve_stock(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) if max(x.shape[2:]) > 1 else x


def _halve_native(x: Tensor) -> Tensor:
    rows = as_rows(x)
    images, height, width, channels = rows.shape
    out = empty(images, -(-height // 2), -(-width // 2), channels)
    loaded().foveal_halve(
        Address(rows.data_ptr()), ctypes.c_int64(images), height, width, channels, Address(out.data_ptr())
    )
    return out.permute(0, 3, 1, 2)


def halve(x: Tensor) -> Tensor:
    """Average 2x2 samples: [N, C, H, W] to [N, C, H / 2, W / 2], sides rounded up.

    At an odd edge the mean is over the samples that exist.
    """
    return _halve_native(x) if usable(x) and x.numel() else _halve_stock(x)


def reference(x: Tensor, layout: Layout, side: int, base: int = 0) -> Tensor:
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


def cpu(x: Tensor, layout: Layout, side: int, base: int = 0) -> Tensor:
    """As the reference: one block view and one gather a level, channels last."""
    out = x.new_empty(layout.computed, side, side, x.shape[1])
    levels = layout.level[: layout.computed]
    for level in range(base, max(layout.levels, default=base) + 1):
        x = x if level == base else halve(x)
        chosen = (levels == level).nonzero().squeeze(1)
        if len(chosen):
            out[chosen] = _blocks(x, side)[
                layout.image[chosen], layout.row[chosen] >> level, layout.column[chosen] >> level
            ]
    return out.permute(0, 3, 1, 2)


def _blocks(x: Tensor, side: int) -> Tensor:
    """View a map [N, C, H, W] as blocks [N, rows, columns, side, side, C], zeros added at the end."""
    height, width = x.shape[2:]
    x = F.pad(x, (0, -width % side, 0, -height % side))
    x = x.unflatten(3, (-1, side)).unflatten(2, (-1, side))
    return x.permute(0, 2, 4, 3, 5, 1)


def _places(layout: Layout) -> list[list[int]]:
    places = torch.stack([layout.image, layout.level, layout.row, layout.column], 1)
    return places[: layout.computed].tolist()


def native(x: Tensor, layout: Layout, side: int, base: int = 0) -> Tensor:
    """As the reference, in C: no reduced map is written."""
    rows = as_rows(x)
    out = empty(layout.computed, side, side, x.shape[1])
    lists = [v.contiguous() for v in (layout.image, layout.level, layout.row, layout.column)]
    places = Places(*(v.data_ptr() for v in lists), layout.computed, *rows.shape[1:], side, base)
    loaded().foveal_cut(ctypes.byref(places), Address(rows.data_ptr()), Address(out.data_ptr()))
    return out.permute(0, 3, 1, 2)


def _fits(x: Tensor, *rest: object) -> bool:
    return usable(x)


cut_tiles = Op(reference, _fits, cpu=cpu, native=native)
