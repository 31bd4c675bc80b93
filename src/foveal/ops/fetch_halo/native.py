"""Borders in C: every sample is read through the index."""

from __future__ import annotations

import ctypes

from torch import Tensor

from foveal.geometry.layout import Halo, Layout
from foveal.kernels.abi import Address, Source, usable
from foveal.kernels.build import loaded
from foveal.kernels.workspace import empty


def supports(tiles: Tensor, layout: Layout, halo: Halo, kept: Tensor | None = None) -> bool:
    """Whether C can take the tiles."""
    return usable(tiles, layout) and (kept is None or usable(kept))


def run(tiles: Tensor, layout: Layout, halo: Halo, kept: Tensor | None = None) -> Tensor:
    """As the reference."""
    source = Source(tiles, layout, max(halo[:4]), halo.fill, kept)
    side = tiles.shape[2]
    height, width = halo.top + side + halo.bottom, halo.left + side + halo.right
    out = empty(len(tiles), height, width, tiles.shape[1])
    loaded().foveal_gather(
        ctypes.byref(source.struct(halo.top, halo.left)), height, width, Address(out.data_ptr())
    )
    return out.permute(0, 3, 1, 2)
