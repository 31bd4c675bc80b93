"""Pooled tiles in C, without writing the border."""

from __future__ import annotations

import ctypes
import math

from torch import Tensor

from foveal.geometry.layout import Layout
from foveal.kernels.abi import MOST_TAPS, Source, Window, usable
from foveal.kernels.build import loaded
from foveal.kernels.workspace import empty
from foveal.ops.max_pool.spec import Pooling


def supports(x: Tensor, layout: Layout, pooling: Pooling, kept: Tensor | None = None) -> bool:
    """Whether C can take the tiles and the window."""
    same = pooling.dilation[0] == pooling.dilation[1] and math.prod(pooling.kernel) <= MOST_TAPS
    return same and usable(x, layout) and (kept is None or usable(kept))


def run(x: Tensor, layout: Layout, pooling: Pooling, kept: Tensor | None = None) -> Tensor:
    """As the reference."""
    p, side = pooling, x.shape[2] // pooling.stride[0]
    source = Source(x, layout, max(p.halo[:4]), "lowest", kept)
    out = empty(len(x), side, side, x.shape[1])
    none = None, None, 0.0, 0.0
    window = Window(
        source.struct(p.halo.top, p.halo.left),
        *none,
        out.data_ptr(),
        *p.kernel,
        p.stride[0],
        p.dilation[0],
        side,
        side,
    )
    loaded().foveal_max_pool(ctypes.byref(window))
    return out.permute(0, 3, 1, 2)
