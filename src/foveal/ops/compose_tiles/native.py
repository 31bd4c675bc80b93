"""A dense map in C: every tile is enlarged where it lies."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from foveal.geometry.layout import Layout
from foveal.kernels.abi import Address, Places, Source, usable
from foveal.kernels.build import loaded, tell
from foveal.kernels.workspace import empty


def supports(tiles: Tensor, layout: Layout, *rest: object) -> bool:
    """Whether C can take the tiles."""
    return usable(tiles, layout)


def run(tiles: Tensor, layout: Layout, base: int = 0) -> Tensor:
    """As the reference."""
    layout, side = layout.everything, tiles.shape[2]
    height, width = layout.extent(side, base)
    source = Source(tiles, layout, 1, "edge")
    out = empty(layout.images, height, width, tiles.shape[1])
    if bool((layout.owner < 0).any()):
        out.zero_()
    tell("interpolation", 4 * tiles.shape[1] * sum(_samples(layout, side, base)))
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


def _samples(layout: Layout, side: int, base: int) -> list[int]:
    """Samples that tiles of every coarser level are enlarged to."""
    counts = torch.bincount(layout.level).tolist()
    return [n * (side << (level - base)) ** 2 for level, n in enumerate(counts) if level > base]
