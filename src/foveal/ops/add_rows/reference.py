"""A map of what is added, 0 elsewhere."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def run(
    base: Tensor,
    rows: Tensor,
    where: Tensor,
    scale: Tensor | None = None,
    low: float = -math.inf,
    high: float = math.inf,
) -> Tensor:
    """Return clamp(scale * base + row, low, high), where there is no row without it.

    Args:
        base: Map as samples [R, C].
        rows: What is added [B, C].
        where: Row that every sample gets [R], int32; -1 for none.
        scale: Factor of the map per channel [C]; 1 if absent.
        low: Smallest value.
        high: Largest value.

    Returns:
        [R, C].
    """
    added = torch.cat([rows, rows.new_zeros(1, rows.shape[1])])[where.long()]  # the last row is that of -1
    out = added + (base if scale is None else base * scale)
    return out if (low, high) == (-math.inf, math.inf) else out.clamp(low, high)
