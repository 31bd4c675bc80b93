"""Convolve small patches, every sample of which is a row of a table: windows at listed places of a map.

A map is a table of rows of channels, and a patch says of each of its samples which row it is. So a window
that is computed by itself, or a small square of windows, reads a dense map, or the rows that an earlier
convolution has left for some places only; places outside the image, or that nobody has computed, are 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foveal.ops.convolve.spec import Convolution


def check(rows: Tensor, index: Tensor, convolution: Convolution, wanted: int | None = None) -> None:
    """Refuse patches that do not belong to the table or to the convolution.

    Raises:
        ValueError: The table has other channels, the index is no int32 [B, P, Q] or names rows that there are
            not, or patches are smaller than the window.
    """
    if rows.ndim != 2 or rows.shape[1] != convolution.channels:
        raise ValueError(
            f"the rows are {list(rows.shape)}; the convolution takes [R, {convolution.channels}], a row of "
            "channels per sample"
        )
    if index.ndim != 3 or index.dtype != torch.int32:
        raise ValueError(
            f"the index is {list(index.shape)} of {index.dtype}; give int32 [B, P, Q], the row of every "
            "sample of every patch"
        )
    if min(sides_of(index, convolution)) < 1:
        raise ValueError(
            f"patches of {tuple(index.shape[1:])} are smaller than the window of {convolution.kernel}; give "
            "larger ones"
        )
    if index.numel():
        least, most = (int(end) for end in index.aminmax())
        if least < -1 or most >= len(rows):
            raise ValueError(
                f"the index names rows from {least} to {most} and there are {len(rows)}; give -1 for what is "
                f"0, and rows from 0 to {len(rows) - 1}"
            )


def sides_of(index: Tensor, c: Convolution) -> tuple[int, int]:
    """Return rows and columns of outputs of a patch."""
    down, across = (
        (side - c.dilation * (k - 1) - 1) // c.stride + 1
        for side, k in zip(index.shape[1:], c.kernel, strict=True)
    )
    return down, across
