"""Take the largest sample of every window; outside the image lies the lowest number."""

from __future__ import annotations

import ctypes
import math
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from foveal.geometry.layout import Halo, Layout
from foveal.kernels.abi import MOST_TAPS, Source, Window, usable
from foveal.kernels.build import loaded
from foveal.kernels.workspace import empty
from foveal.ops.fetch_halo import fetch_halo
from foveal.ops.op import Op


class Pooling(NamedTuple):
    """A window that slides over a map.

    Attributes:
        kernel: Its rows and columns.
        stride: Steps along both axes, equal.
        dilation: Of its rows and columns.
        halo: Samples it reaches beyond a tile.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    halo: Halo


def reference(x: Tensor, layout: Layout, pooling: Pooling, kept: Tensor | None = None) -> Tensor:
    """Pool tiles [B, C, side, side] to [B, C, side / stride, side / stride]."""
    return _stock(x, layout, pooling, kept, "reference")


def cpu(x: Tensor, layout: Layout, pooling: Pooling, kept: Tensor | None = None) -> Tensor:
    """As the reference, with borders fetched by gathering."""
    return _stock(x, layout, pooling, kept, None)


def _stock(x: Tensor, layout: Layout, p: Pooling, kept: Tensor | None, impl: str | None) -> Tensor:
    if not p.halo.empty or layout.held(x.shape[2]) is not None:
        x = fetch_halo(x, layout, p.halo, kept, impl=impl)
    return F.max_pool2d(x, p.kernel, p.stride, 0, p.dilation)


def native(x: Tensor, layout: Layout, pooling: Pooling, kept: Tensor | None = None) -> Tensor:
    """As the reference, in C, without writing the border."""
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


def _fits(x: Tensor, layout: Layout, pooling: Pooling, kept: Tensor | None = None) -> bool:
    same = pooling.dilation[0] == pooling.dilation[1] and math.prod(pooling.kernel) <= MOST_TAPS
    return same and usable(x, layout) and (kept is None or usable(kept))


max_pool = Op(reference, _fits, cpu=cpu, native=native)
