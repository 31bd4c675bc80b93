"""Where every sample that a tile borrows comes from: the table that borders are fetched with.

A coordinate outside a tile belongs to the tile that holds it: its sample is copied if that tile is at the
same level, the nearest sample is taken if it is coarser, and if it is finer the mean of the four samples one
level finer, and so on down.
Source: the border rule of SegBlocks (Verelst and Tuytelaars, TPAMI 2022, section 3.2), for any level.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from foveal.geometry.layout import Halo, Layout

UNKNOWN, FINER = -1, -2
"""Instead of a source: there is none, or it is an average."""


class HaloTable(NamedTuple):
    """Which row of which source goes where in the bordered tiles; rows are samples, in the order of tiles.

    Attributes:
        own: Destination and source rows [2, R] among the tiles computed now.
        kept: The same among the tiles kept from before.
        mean: Destinations [M] of averages over finer samples, or over nothing, which makes 0.
        own_parts: Average number and source row [2, P], among the tiles computed now.
        own_shares: Share [P] of each part in its average.
        kept_parts: As `own_parts`, among the tiles kept from before.
        kept_shares: As `own_shares`.
        outside: Destinations that lie outside the image, or where nothing is known.
    """

    own: Tensor
    kept: Tensor
    mean: Tensor
    own_parts: Tensor
    own_shares: Tensor
    kept_parts: Tensor
    kept_shares: Tensor
    outside: Tensor


def halo_table(layout: Layout, side: int, halo: Halo, device: torch.device | str = "cpu") -> HaloTable:
    """Build the table of borrowed samples; it is shared by all layers of a scale.

    Args:
        layout: Place of every tile.
        side: Samples on a tile's side.
        halo: Width of the border on each side, and what lies outside the image.
        device: Where the table is wanted; it is moved there once.

    Returns:
        Rows into tiles of [B, side, side] samples, for tiles of
        [computed, top + side + bottom, left + side + right] samples.
    """
    if torch.device(device).type == "cpu":
        return layout.table(("halo", side, halo), lambda layout: _build(layout, side, halo))
    return layout.table(
        ("halo", side, halo, str(device)),
        lambda layout: HaloTable(*(x.to(device) for x in halo_table(layout, side, halo))),
    )


def _build(layout: Layout, side: int, halo: Halo) -> HaloTable:
    """Find the source of every borrowed sample."""
    tile, row, column = _borrowed(layout, side, halo)
    level, image = layout.level[tile], layout.image[tile]
    height, width = halo.top + side + halo.bottom, halo.left + side + halo.right
    destination = (tile * height + row) * width + column
    y = ((layout.row[tile] * side) >> level) + row - halo.top
    x = ((layout.column[tile] * side) >> level) + column - halo.left
    unit = (layout.tile // side) << level
    last_y = (layout.size[0] - 1) // unit
    last_x = (layout.size[1] - 1) // unit
    if halo.fill == "edge":
        y, x = torch.minimum(y.clamp(min=0), last_y), torch.minimum(x.clamp(min=0), last_x)
    inside = (y >= 0) & (x >= 0) & (y <= last_y) & (x <= last_x)
    source = torch.full_like(destination, UNKNOWN)
    source[inside] = _source(layout, side, image[inside], level[inside], y[inside], x[inside])
    if layout.borders == "zero":
        source[(source != UNKNOWN) & (source // side**2 != tile)] = FINER
    finer = (source == FINER).nonzero().squeeze(1)
    seen = finer[:0] if layout.borders == "zero" else finer  # an average over nothing is 0
    number, parts, shares = _average(layout, side, image[seen], level[seen], y[seen], x[seen])
    border = layout.computed * side * side
    own, kept = (source >= 0) & (source < border), source >= border
    fresh = parts < border
    return HaloTable(
        own=torch.stack([destination[own], source[own]]),
        kept=torch.stack([destination[kept], source[kept] - border]),
        mean=destination[finer],
        own_parts=torch.stack([number[fresh], parts[fresh]]),
        own_shares=shares[fresh],
        kept_parts=torch.stack([number[~fresh], parts[~fresh] - border]),
        kept_shares=shares[~fresh],
        outside=destination[source == UNKNOWN],
    )


def _borrowed(layout: Layout, side: int, halo: Halo) -> tuple[Tensor, Tensor, Tensor]:
    """List the samples (tile, row, column in the bordered tile) that are not the tile's own.

    Those are the border, what hangs over the edge of the image, and what finer tiles have taken over.
    """
    rim = torch.ones(halo.top + side + halo.bottom, halo.left + side + halo.right, dtype=torch.bool)
    rim[halo.top : halo.top + side, halo.left : halo.left + side] = False
    row, column = rim.nonzero().unbind(1)
    tile = torch.arange(layout.computed).repeat_interleave(len(row))
    row, column = row.repeat(layout.computed), column.repeat(layout.computed)
    held = layout.held(side)
    if held is None:
        return tile, row, column
    over = (~held).nonzero()
    return (
        torch.cat([tile, over[:, 0]]),
        torch.cat([row, over[:, 1] + halo.top]),
        torch.cat([column, over[:, 2] + halo.left]),
    )


def _source(layout: Layout, side: int, image: Tensor, level: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Find the sample row that holds coordinates of a level, FINER if an average does, or UNKNOWN."""
    tile = layout.owner[image, (y << level) // side, (x << level) // side]
    held = layout.level[tile]
    coarser, finer = (held - level).clamp(min=0), (level - held).clamp(min=0)
    row = (y >> coarser << finer) - ((layout.row[tile] * side) >> held)
    column = (x >> coarser << finer) - ((layout.column[tile] * side) >> held)
    source = (tile * side + row) * side + column
    if layout.borders != "strided":  # which takes the first sample
        source = torch.where(held < level, FINER, source)
    return torch.where(tile < 0, UNKNOWN, source)


def _average(
    layout: Layout, side: int, image: Tensor, level: Tensor, y: Tensor, x: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Write samples of finer tiles as averages: the mean of the four samples one level finer, and so on.

    Returns:
        Number of the average, source row and share of every part.
    """
    number = torch.arange(len(y))
    share = torch.ones(len(y), dtype=torch.float64)
    found: list[tuple[Tensor, Tensor, Tensor]] = [(number[:0], number[:0], share[:0])]
    while len(number):
        level = (level - 1).repeat_interleave(4)
        number, image = number.repeat_interleave(4), image.repeat_interleave(4)
        y = (2 * y[:, None] + torch.tensor([0, 0, 1, 1])).flatten()
        x = (2 * x[:, None] + torch.tensor([0, 1, 0, 1])).flatten()
        unit = (layout.tile // side) << level
        inside = (y * unit < layout.size[0]) & (x * unit < layout.size[1])
        share = share.repeat_interleave(4) / inside.view(-1, 4).sum(1).repeat_interleave(4)
        number, image, level, y, x, share = (v[inside] for v in (number, image, level, y, x, share))
        source = _source(layout, side, image, level, y, x)
        done, finer = source >= 0, source == FINER
        found.append((number[done], source[done], share[done]))
        number, image, level, y, x, share = (v[finer] for v in (number, image, level, y, x, share))
    numbers, sources, shares = (torch.cat(parts) for parts in zip(*found, strict=True))
    return numbers, sources, shares
