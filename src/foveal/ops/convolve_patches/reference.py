"""Patches that are gathered, then convolved."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.ops.convolve.spec import Convolution


def run(rows: Tensor, index: Tensor, convolution: Convolution, wanted: int | None = None) -> Tensor:
    """Convolve patches.

    Args:
        rows: Samples [R, C].
        index: Row of every sample of every patch [B, P, Q], int32; -1 for 0.
        convolution: What is computed; its padding is in the index, and no residual is added.
        wanted: How many outputs count as work, where the others are by-products; all if absent.

    Returns:
        [B, p, q, O], where a patch of P rows has room for p windows.
    """
    c = convolution
    out = F.conv2d(gathered(rows, index, c), c.weight, c.bias, c.stride, 0, c.dilation, c.groups)
    return c.finish(out, None).permute(0, 2, 3, 1)


def gathered(rows: Tensor, index: Tensor, c: Convolution) -> Tensor:
    """Return patches [B, C, P, Q], after what happens before the convolution; zeros come after it."""
    if c.prologue is not None:
        rows = c.prologue(rows[:, :, None, None])[:, :, 0, 0]
    known = torch.cat([rows, rows.new_zeros(1, rows.shape[1])])  # the last row is that of -1
    return known[index.long()].permute(0, 3, 1, 2)
