"""Tiles that are bordered, then pooled."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from foveal.geometry.layout import Layout
from foveal.ops.fetch_halo import fetch_halo
from foveal.ops.max_pool.spec import Pooling


def run(
    x: Tensor,
    layout: Layout,
    pooling: Pooling,
    kept: Tensor | None = None,
    borders_by: str | None = "reference",
) -> Tensor:
    """Pool tiles.

    Args:
        x: Tiles computed now [B, C, side, side].
        layout: Where the tiles lie.
        pooling: The window.
        kept: Tiles from an earlier pass, at the same point of the network.
        borders_by: Backend that fetches the borders; the first that can if None.

    Returns:
        [B, C, side / stride, side / stride].
    """
    p = pooling
    if not p.halo.empty or layout.held(x.shape[2]) is not None:
        x = fetch_halo(x, layout, p.halo, kept, backend=borders_by)
    return F.max_pool2d(x, p.kernel, p.stride, 0, p.dilation)
