"""Enlarged tiles, their borders fetched by the fastest backend."""

from __future__ import annotations

from torch import Tensor

from foveal.geometry.layout import Layout
from foveal.ops.enlarge import reference


def run(x: Tensor, layout: Layout, factor: int, kept: Tensor | None = None) -> Tensor:
    """As the reference."""
    return reference.run(x, layout, factor, kept, None)
