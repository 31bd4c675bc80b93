"""The tiles of one level, for operations that work level by level."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from foveal.geometry.layout import Layout


class LevelTiles(NamedTuple):
    """Tiles of one level among those that are computed.

    Attributes:
        number: Which tiles they are [T].
        image: Image that they belong to [T].
        row: Their row [T], counted in tiles of the level.
        column: Their column [T], counted in tiles of the level.
    """

    number: Tensor
    image: Tensor
    row: Tensor
    column: Tensor


def level_tiles(layout: Layout, level: int, device: torch.device | str = "cpu") -> LevelTiles:
    """List the computed tiles of a level, on a device; built once per layout."""
    return layout.table(("level tiles", level, str(device)), lambda layout: _build(layout, level, device))


def _build(layout: Layout, level: int, device: torch.device | str) -> LevelTiles:
    number = (layout.level[: layout.computed] == level).nonzero().squeeze(1)
    place = layout.image[number], layout.row[number] >> level, layout.column[number] >> level
    return LevelTiles(*(x.to(device) for x in (number, *place)))
