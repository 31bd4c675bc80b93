"""Tiles in C: no reduced map is written."""

from __future__ import annotations

import ctypes

from torch import Tensor

from foveal.geometry.layout import Layout
from foveal.kernels.abi import Address, Places, as_rows, usable
from foveal.kernels.build import loaded
from foveal.kernels.workspace import empty


def supports(x: Tensor, *rest: object) -> bool:
    """Whether C can take the map."""
    return usable(x)


def run(x: Tensor, layout: Layout, side: int, base: int = 0) -> Tensor:
    """As the reference."""
    rows = as_rows(x)
    out = empty(layout.computed, side, side, x.shape[1])
    lists = [v.contiguous() for v in (layout.image, layout.level, layout.row, layout.column)]
    places = Places(*(v.data_ptr() for v in lists), layout.computed, *rows.shape[1:], side, base)
    loaded().foveal_cut(ctypes.byref(places), Address(rows.data_ptr()), Address(out.data_ptr()))
    return out.permute(0, 3, 1, 2)
