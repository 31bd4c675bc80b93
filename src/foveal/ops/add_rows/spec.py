"""Add rows to a map at some of its places, and finish all of it: what a shortcut is to a residual branch."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def check(
    base: Tensor,
    rows: Tensor,
    where: Tensor,
    scale: Tensor | None = None,
    low: float = -math.inf,
    high: float = math.inf,
) -> None:
    """Refuse rows that do not belong to the map.

    Raises:
        ValueError: They have other channels, or places name rows that there are not.
    """
    if base.ndim != 2 or rows.ndim != 2 or base.shape[1] != rows.shape[1]:
        raise ValueError(
            f"the map is {list(base.shape)} and the rows are {list(rows.shape)}; give [R, C] and [B, C]"
        )
    if where.shape != base.shape[:1] or where.dtype != torch.int32:
        raise ValueError(
            f"places are {list(where.shape)} of {where.dtype}; give int32 [{len(base)}], the row that every "
            "sample gets, or -1"
        )
    if scale is not None and scale.shape != base.shape[1:]:
        raise ValueError(f"the scale is {list(scale.shape)}; {base.shape[1]} channels need as many")
    if where.numel():
        least, most = (int(end) for end in where.aminmax())
        if least < -1 or most >= len(rows):
            raise ValueError(
                f"places name rows from {least} to {most} and there are {len(rows)}; give -1 for none, and "
                f"rows from 0 to {len(rows) - 1}"
            )
