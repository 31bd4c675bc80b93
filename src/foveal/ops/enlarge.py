"""Enlarge tiles bilinearly by a whole factor, with samples of the neighbours, so that there are no seams."""

from __future__ import annotations

import ctypes

from torch import Tensor
from torch.nn import functional as F

from foveal.geometry.layout import Halo, Layout
from foveal.kernels.abi import Address, Source, usable
from foveal.kernels.build import loaded, tell
from foveal.kernels.workspace import empty
from foveal.ops.fetch_halo import fetch_halo
from foveal.ops.op import Op


def reference(x: Tensor, layout: Layout, factor: int, kept: Tensor | None = None) -> Tensor:
    """Enlarge tiles [B, C, side, side] to [B, C, factor side, factor side], half-pixel centres."""
    return _stock(x, layout, factor, kept, "reference")


def cpu(x: Tensor, layout: Layout, factor: int, kept: Tensor | None = None) -> Tensor:
    """As the reference, with borders fetched by gathering."""
    return _stock(x, layout, factor, kept, None)


def _stock(x: Tensor, layout: Layout, factor: int, kept: Tensor | None, impl: str | None) -> Tensor:
    bordered = fetch_halo(x, layout, Halo.around(1, "edge"), kept, impl=impl)
    large = F.interpolate(bordered, scale_factor=factor, mode="bilinear", align_corners=False)
    return large[:, :, factor:-factor, factor:-factor]


def native(x: Tensor, layout: Layout, factor: int, kept: Tensor | None = None) -> Tensor:
    """As the reference, in C, without writing the border."""
    side = factor * x.shape[2]
    tell("interpolation", 4 * x.numel() * factor**2)
    source = Source(x, layout, 1, "edge", kept)
    out = empty(len(x), side, side, x.shape[1])
    loaded().foveal_enlarge(ctypes.byref(source.struct()), factor, Address(out.data_ptr()))
    return out.permute(0, 3, 1, 2)


def _fits(x: Tensor, layout: Layout, factor: int, kept: Tensor | None = None) -> bool:
    return usable(x, layout) and (kept is None or usable(kept))


enlarge = Op(reference, _fits, cpu=cpu, native=native)
