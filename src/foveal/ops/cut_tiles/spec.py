"""Cut a dense map into tiles: every tile holds the mean of the map over its samples.

A sample of a level-l tile is the mean of the four samples one level finer, of those that lie in the image.
Samples outside the image are 0.
"""

from __future__ import annotations

from torch import Tensor

from foveal.geometry.layout import Layout
from foveal.ops.tiles import check_base


def check(x: Tensor, layout: Layout, side: int, base: int = 0) -> None:
    """Refuse a map that is not that of the layout.

    Raises:
        ValueError: The side is no whole stride of the tile, a tile is finer than the map, or the map has
            another number of images or another extent than the layout has at its level.
    """
    if side < 1 or layout.tile % side:
        raise ValueError(
            f"tiles of {side} samples a side are wanted; the layout's tile of {layout.tile} px is no "
            "multiple of that, give a whole stride of it"
        )
    check_base(layout, base)
    extent = layout.extent(side, base)
    if x.ndim != 4 or (len(x), *x.shape[2:]) != (layout.images, *extent):
        raise ValueError(
            f"the map is {list(x.shape)}; the layout, with {side} samples a side, has "
            f"[{layout.images}, C, {extent[0]}, {extent[1]}] at level {base}"
        )
