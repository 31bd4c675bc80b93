"""A feature map in the tiles of another plan: between two stages of a network, when what is open changes."""

from __future__ import annotations

import torch
from torch import Tensor

from foveal.geometry.layout import Layout
from foveal.ops import compose_tiles, cut_tiles
from foveal.tiles.tensor import TileTensor, pool


def retile(x: TileTensor, layout: Layout) -> TileTensor:
    """Return a map in the tiles of another plan for the same images.

    Tiles that both plans have stay as they are. Others are cut from the composed map: the mean of what is
    finer there, and what is coarser enlarged.

    Args:
        x: The map, all its tiles computed now.
        layout: Where the other plan's tiles lie.

    Raises:
        NoTileRule: Explicit padding is pending, or the map's axes are not [N, C, H, W].
        ValueError: The plan is of other images.
    """
    tiles, before = pool(x, "retile"), x.layout
    if (before.size, before.tile, before.images) != (layout.size, layout.tile, layout.images):
        raise ValueError(
            f"the map is of {before.images} images of {before.size} with tile {before.tile}, the plan is for "
            f"{layout.images} of {layout.size} with tile {layout.tile}"
        )
    place = _same(before, layout)
    known = place >= 0
    if bool(known.all()):
        return TileTensor(tiles[place.to(tiles.device)], layout)
    cut = cut_tiles(compose_tiles(tiles, before), layout, x.side)
    if not bool(known.any()):
        return TileTensor(cut, layout)
    kept, where = tiles[place.clamp(min=0).to(cut.device)], known.to(cut.device)[:, None, None, None]
    return TileTensor(torch.where(where, kept, cut), layout)


def _same(before: Layout, layout: Layout) -> Tensor:
    """Return the tile of a layout that lies where a tile of another one does [B]; -1 where none does."""
    owner = before.owner[layout.image, layout.row, layout.column]
    tile = owner.clamp(min=0)
    alike = (before.level[tile] == layout.level) & (before.row[tile] == layout.row)
    return torch.where((owner >= 0) & alike & (before.column[tile] == layout.column), owner, -1)
