"""Borders by a table: the interior is copied, only what is borrowed is gathered."""

from __future__ import annotations

import torch
from torch import Tensor

from foveal.geometry.halo_table import HaloTable, halo_table
from foveal.geometry.layout import Halo, Layout


def run(tiles: Tensor, layout: Layout, halo: Halo, kept: Tensor | None = None) -> Tensor:
    """As the reference."""
    side, channels = tiles.shape[2], tiles.shape[1]
    table = halo_table(layout, side, halo, tiles.device)
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
