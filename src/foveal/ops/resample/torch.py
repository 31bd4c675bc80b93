"""Resampled tiles: bordered, then rows and columns are gathered and mixed."""

from __future__ import annotations

import torch
from torch import Tensor

from foveal.geometry.layout import Halo, Layout
from foveal.kernels.build import tell
from foveal.ops.fetch_halo import fetch_halo
from foveal.ops.resample.spec import Resampling, positions


def run(x: Tensor, layout: Layout, how: Resampling, kept: Tensor | None = None) -> Tensor:
    """As the reference."""
    found = positions(layout, x.shape[2], how)
    first, last = found.reach
    before, after = max(0, -first), max(0, last - x.shape[2] + 1)
    x = fetch_halo(x, layout, Halo(before, after, before, after, "edge"), kept)
    if how.mode == "bilinear":
        tell("interpolation", 4 * x.shape[0] * x.shape[1] * how.side**2)
    x = _along(x, 2, found.rows + before, how)
    return _along(x, 3, found.columns + before, how)


def _along(x: Tensor, dim: int, place: Tensor, how: Resampling) -> Tensor:
    """Read tiles [B, C, height, width] at positions [B, new] along one dimension."""
    shape = [len(place), 1, 1, 1]
    shape[dim] = place.shape[1]
    floor = place.floor()
    index = floor.long().to(x.device).reshape(shape)
    lower = torch.take_along_dim(x, index, dim)
    if how.mode != "bilinear":
        return lower
    upper = torch.take_along_dim(x, (index + 1).clamp(max=x.shape[dim] - 1), dim)
    return torch.lerp(lower, upper, (place - floor).to(x).reshape(shape))
