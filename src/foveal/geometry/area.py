"""Area of the image that every sample of a tile represents."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.geometry.layout import Layout


def areas(layout: Layout, side: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the area of every sample [B, side, side] in samples of level 0, on a device, float32.

    It is 0 outside the image and where finer tiles have taken over; tiles that are kept count with what is
    left of them. Built once per layout.

    Args:
        layout: Place of every tile.
        side: Samples on a tile's side.
        device: Where the areas are wanted.
    """
    if torch.device(device).type == "cpu":
        return layout.table(("area", side), lambda layout: _build(layout, side))
    return layout.table(("area", side, str(device)), lambda layout: areas(layout, side).to(device))


def _build(layout: Layout, side: int) -> Tensor:
    inside = layout.everything.inside(side)
    ones = torch.ones(len(layout), side, side)
    area = ones * (4.0 ** layout.level.view(-1, 1, 1)) * (ones if inside is None else inside)
    return area * _owned(layout, side) if layout.computed < len(layout) else area


def _owned(layout: Layout, side: int) -> Tensor:
    """Share of each sample [B, side, side] whose place still belongs to its tile."""
    out = torch.zeros(len(layout), side, side)
    for b, (n, level, row, column) in enumerate(
        torch.stack([layout.image, layout.level, layout.row, layout.column], 1).tolist()
    ):
        mine = (layout.owner[n, row : row + 2**level, column : column + 2**level] == b).float()
        mine = F.pad(mine, (0, 2**level - mine.shape[1], 0, 2**level - mine.shape[0]), value=1.0)
        if level == 0 or side % 2**level == 0:
            out[b] = F.interpolate(mine[None, None], size=(side, side), mode="nearest")[0, 0]
        else:
            out[b] = F.adaptive_avg_pool2d(mine[None], side)[0]
    return out
