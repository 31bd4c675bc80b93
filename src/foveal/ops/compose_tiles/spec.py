"""Put tiles of all levels together into one dense map.

Tiles coarser than the map are upsampled bilinearly, with borders from their neighbours, so that there are no
seams. Tiles finer than the map are not allowed: the caller picks the level of the map.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from foveal.geometry.layout import Layout
from foveal.ops.tiles import check_base, check_tiles


def check(tiles: Tensor, layout: Layout, base: int = 0) -> None:
    """Refuse tiles that are not all those of the layout.

    Raises:
        ValueError: Another number of tiles, kept ones included, or of another shape; or one is finer than
            the map.
    """
    check_tiles(tiles, layout, len(layout))
    check_base(layout, base)


def enlarged(bordered: Tensor, factor: int) -> Tensor:
    """Upsample tiles with a border of 1 bilinearly by a whole factor; the border goes."""
    x = F.interpolate(bordered, scale_factor=factor, mode="bilinear", align_corners=False)
    return x[:, :, factor:-factor, factor:-factor]
