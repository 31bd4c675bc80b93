"""Resizing, written as two matrix products."""

from __future__ import annotations

import torch
from torch import Tensor

from foveal.ops.resize.spec import taps


def run(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the map [N, C, H, W] at other sides, [N, C, *size]."""
    rows, columns = (_matrix(side, outputs).to(x) for side, outputs in zip(x.shape[2:], size, strict=True))
    return rows @ x @ columns.T


def _matrix(side: int, outputs: int) -> Tensor:
    """Return the weights of all samples in all outputs [outputs, side]."""
    first, weights = taps(side, outputs)
    places = first.long() + torch.arange(len(weights))[:, None]
    return torch.zeros(outputs, side, dtype=weights.dtype).scatter_(1, places.T, weights.T)
