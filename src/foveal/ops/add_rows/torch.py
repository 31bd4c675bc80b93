"""Rows that are added in a copy of the map."""

from __future__ import annotations

import math

from torch import Tensor


def run(
    base: Tensor,
    rows: Tensor,
    where: Tensor,
    scale: Tensor | None = None,
    low: float = -math.inf,
    high: float = math.inf,
) -> Tensor:
    """As the reference."""
    places = (where >= 0).nonzero()[:, 0]
    out = (base if scale is None else base * scale).index_add(0, places, rows[where[places].long()])
    return out if (low, high) == (-math.inf, math.inf) else out.clamp(low, high)
