"""What the tiles that are given to an operation must be."""

from __future__ import annotations

from torch import Tensor

from foveal.geometry.layout import Layout


def check_tiles(
    tiles: Tensor, layout: Layout, count: int, kept: Tensor | None = None, reaches: bool = True
) -> int:
    """Return the side of the tiles of a layout [samples].

    Args:
        tiles: [count, C, side, side].
        layout: Where they lie.
        count: How many tiles there must be.
        kept: Tiles from an earlier pass [len(layout) - count, C, side, side].
        reaches: Whether the operation looks beyond a tile, so that kept tiles may not be left out.

    Raises:
        ValueError: Another number of tiles, tiles that are not square or no whole stride of the layout's
            tile, or kept tiles that are missing, superfluous or of another shape.
    """
    shape = tiles.shape  # asked for once: it takes as long as all comparisons
    if len(shape) != 4 or shape[0] != count or shape[2] != shape[3]:
        raise ValueError(
            f"the tiles are {list(shape)}; the layout needs [{count}, C, side, side], square ones"
        )
    side = shape[2]
    if side < 1 or layout.tile % side:
        raise ValueError(
            f"the tiles have {side} samples a side; the layout's tile of {layout.tile} px is no multiple of "
            "that, give a whole stride of it"
        )
    missing = len(layout) - count
    if kept is None and missing and (reaches or layout.overtaken):
        raise ValueError(f"the layout has {missing} tiles kept from an earlier pass, and none are given")
    if kept is not None and kept.shape != (missing, *shape[1:]):
        raise ValueError(
            f"the kept tiles are {list(kept.shape)}; the layout and the tiles computed now need "
            f"{[missing, *shape[1:]]}"
        )
    return side


def check_base(layout: Layout, base: int) -> None:
    """Refuse the level of a dense map that is coarser than a tile.

    Raises:
        ValueError: A tile is finer than the map, or the level is below 0.
    """
    finest = min(layout.levels, default=base)
    if base < 0 or finest < base:
        raise ValueError(
            f"the map is at level {base} and the finest tile at {finest}; give a level of 0 to that"
        )
