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

import ctypes

import torch
from torch import Tensor

from foveal.geometry.layout import Halo, HaloTable, Layout
from foveal.kernels.abi import Address, Source, usable
from foveal.kernels.build import loaded
from foveal.kernels.workspace import empty
from foveal.ops.op import Op


def reference(tiles: Tensor, layout: Layout, halo: Halo, kept: Tensor | None = None) -> Tensor:
    """Border the tiles that are computed now.

    Args:
        tiles: Tiles computed now [B, C, side, side].
        layout: Where these tiles and the kept ones lie.
        halo: Width of the border on each side, and what lies outside.
        kept: Tiles from an earlier pass or frame, at the same point of the network.

    Returns:
        [B, C, top + side + bottom, left + side + right].
    """
    side = tiles.shape[2]
    if not layout.computed:
        return tiles.new_zeros(
            0, tiles.shape[1], halo.top + side + halo.bottom, halo.left + side + halo.right
        )
    pool = tiles if kept is None else torch.cat([tiles, kept])
    canvases = _canvases(pool, layout, side)
    lowest = torch.finfo(tiles.dtype).min if halo.fill == "lowest" else 0.0
    out = []
    for b in range(layout.computed):
        level = int(layout.level[b])
        values, known = canvases[level][0][layout.image[b]], canvases[level][1][layout.image[b]]
        top = (int(layout.row[b]) * side >> level) - halo.top
        left = (int(layout.column[b]) * side >> level) - halo.left
        rows = torch.arange(top, top + halo.top + side + halo.bottom)
        columns = torch.arange(left, left + halo.left + side + halo.right)
        height, width = known.shape
        inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))[None]
        rows, columns = rows.clamp(0, height - 1)[:, None], columns.clamp(0, width - 1)[None]
        valid = known[rows, columns] if halo.fill == "edge" else known[rows, columns] & inside
        seen = values[:, rows, columns]
        if layout.borders == "zero":
            owner = layout.owner[layout.image[b], (rows << level) // side, (columns << level) // side]
            seen = torch.where(owner == b, seen, 0.0)
        out.append(torch.where(valid, seen, lowest))
    return torch.stack(out)


def _canvases(pool: Tensor, layout: Layout, side: int) -> list[tuple[Tensor, Tensor]]:
    """Paint the whole image at every level: values [N, C, H, W] and where they are known [N, H, W]."""
    top = max(layout.levels, default=0)
    held = layout.level[layout.owner].masked_fill(layout.owner < 0, top + 1)
    painted = [_paint(pool, layout, level) for level in range(top + 1)]
    canvases: list[tuple[Tensor, Tensor]] = []
    for level, values in enumerate(painted):
        rows, columns = (torch.arange(extent) for extent in layout.extent(side, level))
        cell = held[:, ((rows << level) // side)[:, None], ((columns << level) // side)[None]]
        known = cell <= top
        for coarser in range(level + 1, top + 1):
            shift = coarser - level
            nearest = painted[coarser][:, :, (rows >> shift)[:, None], (columns >> shift)[None]]
            values = torch.where((cell == coarser)[:, None], nearest, values)
        if level:
            below = _first(*canvases[-1]) if layout.borders == "strided" else _mean_of_known(*canvases[-1])
            finer = cell < level
            values, known = torch.where(finer[:, None], below[0], values), torch.where(finer, below[1], known)
        canvases.append((values, known))
    return canvases


def _paint(pool: Tensor, layout: Layout, level: int) -> Tensor:
    """Write the tiles of one level on an empty canvas [N, C, H, W]."""
    side = pool.shape[2]
    canvas = pool.new_zeros(layout.images, pool.shape[1], *layout.extent(side, level))
    for b in (layout.level == level).nonzero().flatten().tolist():
        top, left = (int(first[b]) * side >> level for first in (layout.row, layout.column))
        height, width = min(side, canvas.shape[2] - top), min(side, canvas.shape[3] - left)
        canvas = canvas.clone()
        canvas[layout.image[b], :, top : top + height, left : left + width] = pool[b, :, :height, :width]
    return canvas


def _first(values: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Take the upper left of 2x2 samples."""
    return values[:, :, ::2, ::2], known[:, ::2, ::2]


def _mean_of_known(values: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Average 2x2 samples; unknown ones count as 0, samples outside the image do not count."""
    from foveal.ops.cut_tiles import halve

    return halve(torch.where(known[:, None], values, 0.0)), halve(known[:, None].to(values.dtype))[:, 0] > 0


def cpu(tiles: Tensor, layout: Layout, halo: Halo, kept: Tensor | None = None) -> Tensor:
    """As the reference: copy the interior, gather only what is borrowed."""
    side, channels = tiles.shape[2], tiles.shape[1]
    table = layout.halo_table(side, halo)
    height, width = halo.top + side + halo.bottom, halo.left + side + halo.right
    out = tiles.new_empty(len(tiles), height, width, channels)
    out[:, halo.top : halo.top + side, halo.left : halo.left + side] = tiles.permute(0, 2, 3, 1)
    flat = out.view(-1, channels)
    rows = _rows(tiles)
    flat.index_copy_(0, table.own[0], rows.index_select(0, table.own[1]))
    if kept is not None and table.kept.shape[1]:
        flat.index_copy_(0, table.kept[0], _rows(kept).index_select(0, table.kept[1]))
    if len(table.mean):
        flat.index_copy_(0, table.mean, _averages(table, rows, kept))
    if len(table.outside):
        lowest = torch.finfo(tiles.dtype).min if halo.fill == "lowest" else 0.0
        flat.index_fill_(0, table.outside, lowest)
    return out.permute(0, 3, 1, 2)


def _averages(table: HaloTable, rows: Tensor, kept: Tensor | None) -> Tensor:
    means = rows.new_zeros(len(table.mean), rows.shape[1])
    parts = rows.index_select(0, table.own_parts[1]) * table.own_shares.to(rows)[:, None]
    means = means.index_add(0, table.own_parts[0], parts)
    if kept is not None and table.kept_parts.shape[1]:
        parts = _rows(kept).index_select(0, table.kept_parts[1]) * table.kept_shares.to(rows)[:, None]
        means = means.index_add(0, table.kept_parts[0], parts)
    return means


def _rows(tiles: Tensor) -> Tensor:
    """View tiles [B, C, side, side] as rows of channels [B * side * side, C]."""
    return tiles.permute(0, 2, 3, 1).reshape(-1, tiles.shape[1])


def native(tiles: Tensor, layout: Layout, halo: Halo, kept: Tensor | None = None) -> Tensor:
    """As the reference, in C: every sample is read through the index."""
    source = Source(tiles, layout, max(halo[:4]), halo.fill, kept)
    side = tiles.shape[2]
    height, width = halo.top + side + halo.bottom, halo.left + side + halo.right
    out = empty(len(tiles), height, width, tiles.shape[1])
    loaded().foveal_gather(
        ctypes.byref(source.struct(halo.top, halo.left)), height, width, Address(out.data_ptr())
    )
    return out.permute(0, 3, 1, 2)


def _fits(tiles: Tensor, layout: Layout, halo: Halo, kept: Tensor | None = None) -> bool:
    return usable(tiles, layout) and (kept is None or usable(kept))


fetch_halo = Op(reference, _fits, cpu=cpu, native=native)
