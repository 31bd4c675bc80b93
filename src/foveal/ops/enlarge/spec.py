"""Enlarge tiles bilinearly by a whole factor, with samples of the neighbours, so that there are no seams."""

from __future__ import annotations

from torch import Tensor

from foveal.geometry.layout import Layout
from foveal.ops.tiles import check_tiles


def check(x: Tensor, layout: Layout, factor: int, kept: Tensor | None = None) -> None:
    """Refuse tiles that are not those of the layout.

    Raises:
        ValueError: Another number or shape of tiles or kept tiles, or a factor below 1.
    """
    check_tiles(x, layout, layout.computed, kept)
    if factor < 1:
        raise ValueError(f"tiles are to be enlarged by {factor}; give a whole factor of at least 1")
