"""Tiles that are bordered, enlarged, and cropped."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from foveal.geometry.layout import Halo, Layout
from foveal.ops.fetch_halo import fetch_halo


def run(
    x: Tensor,
    layout: Layout,
    factor: int,
    kept: Tensor | None = None,
    borders_by: str | None = "reference",
) -> Tensor:
    """Enlarge tiles, with half-pixel centres.

    Args:
        x: Tiles computed now [B, C, side, side].
        layout: Where the tiles lie.
        factor: Whole factor for both sides.
        kept: Tiles from an earlier pass, at the same point of the network.
        borders_by: Backend that fetches the borders; the first that can if None.

    Returns:
        [B, C, factor side, factor side].
    """
    bordered = fetch_halo(x, layout, Halo.around(1, "edge"), kept, backend=borders_by)
    large = F.interpolate(bordered, scale_factor=factor, mode="bilinear", align_corners=False)
    return large[:, :, factor:-factor, factor:-factor]
