"""Borders read from the whole image, painted at every level."""

from __future__ import annotations

import torch
from torch import Tensor

from foveal.geometry.layout import Halo, Layout
from foveal.ops.halve import halve


def run(tiles: Tensor, layout: Layout, halo: Halo, kept: Tensor | None = None) -> Tensor:
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
    return halve(torch.where(known[:, None], values, 0.0)), halve(known[:, None].to(values.dtype))[:, 0] > 0
