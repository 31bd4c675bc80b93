"""Bring tiles to another number of samples a side, by any of PyTorch's rules of where a sample lies.

The map at every level is resized as `torch.nn.functional.interpolate` does it, from the extent that the
image has there to the new one: so all tiles at one level give what the reduced image gives. A sample of the
new map lies at a position of the old one that is counted over the whole image; what lies beyond the tile is
borrowed from the neighbours.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from foveal.geometry.layout import Layout
from foveal.ops.tiles import check_tiles

Mode = Literal["bilinear", "nearest", "nearest-exact"]
MODES: tuple[Mode, ...] = get_args(Mode)


class Resampling(NamedTuple):
    """How tiles are resampled.

    Attributes:
        side: Samples on a tile's side afterwards.
        mode: "bilinear", or which sample is the nearest: by first pixels, or by centres ("nearest-exact").
        align_corners: Whether the first and last samples of both maps lie on one another (bilinear only).
        factor: New samples per old one, if that is prescribed; else it follows from the extents.
    """

    side: int
    mode: Mode = "bilinear"
    align_corners: bool = False
    factor: float | None = None


class Positions(NamedTuple):
    """Where the new samples of every tile lie, in samples from the first one of the tile, float64.

    Attributes:
        rows: [computed, new side].
        columns: [computed, new side].
    """

    rows: Tensor
    columns: Tensor

    @property
    def reach(self) -> tuple[int, int]:
        """Smallest and largest sample that is read, counted from the first one of a tile."""
        both = torch.cat([self.rows, self.columns])
        return (int(both.min().floor()), int(both.max().ceil())) if both.numel() else (0, 0)


def check(x: Tensor, layout: Layout, how: Resampling, kept: Tensor | None = None) -> None:
    """Refuse tiles that are not those of the layout.

    Raises:
        ValueError: Another number or shape of tiles or kept tiles, a new side that is no whole stride of the
            tile, or no such mode.
    """
    check_tiles(x, layout, layout.computed, kept)
    if how.side < 1 or layout.tile % how.side:
        raise ValueError(
            f"tiles of {how.side} samples a side are wanted; the layout's tile of {layout.tile} px is no "
            "multiple of that, give a whole stride of it"
        )
    if how.mode not in MODES:
        raise ValueError(f"there is no resampling '{how.mode}'; give one of {', '.join(MODES)}")


def positions(layout: Layout, side: int, how: Resampling) -> Positions:
    """Tell where new samples lie in tiles of `side` samples. Built once per layout."""
    return layout.table(("positions", side, how), lambda layout: _build(layout, side, how))


def _build(layout: Layout, side: int, how: Resampling) -> Positions:
    found = []
    within = torch.arange(how.side)
    level = layout.level[: layout.computed]
    for axis, first in enumerate((layout.row, layout.column)):
        out = torch.zeros(layout.computed, how.side, dtype=torch.float64)
        start = first[: layout.computed] * how.side >> level
        begin = first[: layout.computed] * side >> level
        for k in layout.levels:
            here = level == k
            old, new = layout.extent(side, k)[axis], layout.extent(how.side, k)[axis]
            place = (start[here, None] + within).clamp(max=new - 1).double()
            out[here] = _place(place, old, new, how) - begin[here, None]
        found.append(out)
    return Positions(*found)


def _place(place: Tensor, old: int, new: int, how: Resampling) -> Tensor:
    """Position in a map of `old` samples of the samples of a new map of `new`."""
    if how.factor is not None:
        new = int(old * how.factor)
    if how.align_corners:
        position = place * ((old - 1) / (new - 1) if new > 1 else 0.0)
        return position.clamp(0, old - 1)
    scale = old / new if how.factor is None else 1 / how.factor
    if how.mode == "bilinear":
        return ((place + 0.5) * scale - 0.5).clamp(0, old - 1)
    shift = 0.5 if how.mode == "nearest-exact" else 0.0
    single = torch.tensor(scale, dtype=torch.float32)  # PyTorch decides in single precision which is nearest
    return ((place + shift).float() * single).floor().double().clamp(max=old - 1)
