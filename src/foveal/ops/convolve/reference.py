"""Convolution as it is written down: border the map, convolve, finish."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from foveal.geometry.layout import Layout
from foveal.ops.convolve.spec import Convolution
from foveal.ops.fetch_halo import fetch_halo


def run(
    x: Tensor,
    layout: Layout | None,
    convolution: Convolution,
    residual: Tensor | None = None,
    kept: Tensor | None = None,
) -> Tensor:
    """Convolve tiles, or a dense map.

    Args:
        x: Tiles computed now [B, C, side, side], or maps [N, C, H, W].
        layout: Where the tiles lie; None for dense maps.
        convolution: What is computed.
        residual: Added before the clamp, of the result's shape.
        kept: Tiles from an earlier pass, at the same point of the network.

    Returns:
        [B, O, side / stride, side / stride]; for maps sides / stride, rounded up.
    """
    return bordered(x, layout, convolution, residual, kept, "reference")


def bordered(
    x: Tensor,
    layout: Layout | None,
    convolution: Convolution,
    residual: Tensor | None,
    kept: Tensor | None,
    borders_by: str | None,
) -> Tensor:
    """Convolve by PyTorch, the borders of tiles fetched by a backend; the first that can if None."""
    c = convolution
    if c.prologue is not None:
        x, kept = c.prologue(x), None if kept is None else c.prologue(kept)
    halo = c.halo
    if layout is None:
        (top, left), (height, width) = c.padding, x.shape[2:]
        bottom, right = (
            max(0, (-(-n // c.stride) - 1) * c.stride + c.dilation * (k - 1) + 1 - p - n)
            for n, k, p in zip((height, width), c.kernel, c.padding, strict=True)
        )
        if (top, left) == (bottom, right):
            padding = top, left
        else:
            x, padding = F.pad(x, (left, right, top, bottom)), (0, 0)
    else:
        padding = 0, 0
        if not halo.empty or (c.kernel != (1, 1) and layout.held(x.shape[2]) is not None):
            x = fetch_halo(x, layout, halo, kept, backend=borders_by)
    x = F.conv2d(x, c.weight, c.bias, c.stride, padding, c.dilation, c.groups)
    return c.finish(x, residual)
