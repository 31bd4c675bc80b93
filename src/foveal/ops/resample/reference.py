"""Resampled tiles by matrices of weights: a hat over every position."""

from __future__ import annotations

import torch
from torch import Tensor

from foveal.geometry.layout import Halo, Layout
from foveal.ops.fetch_halo import fetch_halo
from foveal.ops.resample.spec import Resampling, positions


def run(x: Tensor, layout: Layout, how: Resampling, kept: Tensor | None = None) -> Tensor:
    """Bring tiles to another number of samples a side.

    Args:
        x: Tiles computed now [B, C, side, side].
        layout: Where the tiles lie.
        how: The new side, and where its samples lie.
        kept: Tiles from an earlier pass, at the same point of the network.

    Returns:
        [B, C, new side, new side].
    """
    found = positions(layout, x.shape[2], how)
    width = max(1, -found.reach[0], found.reach[1] - x.shape[2] + 1)
    bordered = fetch_halo(x, layout, Halo.around(width, "edge"), kept, backend="reference")
    place = torch.arange(bordered.shape[2], device=x.device) - width
    rows, columns = ((1 - (p.to(x)[:, :, None] - place).abs()).clamp(min=0) for p in found)
    return torch.einsum("byh,bchw,bxw->bcyx", rows, bordered, columns)
