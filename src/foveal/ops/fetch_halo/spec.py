"""Give every tile a border from its neighbours, whatever their levels.

The border is a window on a virtual canvas at the tile's own level. A coordinate there belongs to the tile
that holds it. If that tile is at the same level the sample is copied, if it is coarser the nearest sample
is, if it is finer the sample is the mean of the four samples one level finer, and so on down. Outside the
image lies what `Halo.fill` says; where nothing is known, zeros (or the lowest number).
`Layout.borders` may ask for the first of the finer samples instead of their mean, or for 0 wherever another
tile holds a sample.
Source: the border rule of SegBlocks (Verelst and Tuytelaars, TPAMI 2022, section 3.2), for any level.
"""

from __future__ import annotations

from torch import Tensor

from foveal.geometry.layout import Halo, Layout
from foveal.ops.tiles import check_tiles


def check(tiles: Tensor, layout: Layout, halo: Halo, kept: Tensor | None = None) -> None:
    """Refuse tiles that are not those of the layout, and borders of negative width.

    Raises:
        ValueError: Another number or shape of tiles or kept tiles, or a width below 0.
    """
    check_tiles(tiles, layout, layout.computed, kept, not halo.empty)
    if min(halo[:4]) < 0:
        raise ValueError(f"the border is {halo}; give widths of at least 0")
