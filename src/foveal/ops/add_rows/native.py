"""One pass over the map in C."""

from __future__ import annotations

import ctypes
import math

from torch import Tensor

from foveal.kernels.abi import Address, usable
from foveal.kernels.build import loaded, pointer
from foveal.kernels.workspace import empty


class _Added(ctypes.Structure):
    """`Added` in kernels/cpu/maps/add.c."""

    _fields_ = [
        *((name, Address) for name in ("base", "rows", "where", "scale", "out")),
        ("count", ctypes.c_int64),
        ("channels", ctypes.c_int32),
        *((name, ctypes.c_float) for name in ("low", "high")),
    ]


def supports(
    base: Tensor,
    rows: Tensor,
    where: Tensor,
    scale: Tensor | None = None,
    low: float = -math.inf,
    high: float = math.inf,
) -> bool:
    """Whether C can: single precision on a CPU, no gradients."""
    return usable(base) and usable(rows) and (scale is None or usable(scale))


def run(
    base: Tensor,
    rows: Tensor,
    where: Tensor,
    scale: Tensor | None = None,
    low: float = -math.inf,
    high: float = math.inf,
) -> Tensor:
    """As the reference."""
    base, rows, where = base.contiguous(), rows.contiguous(), where.contiguous()
    scale, out = None if scale is None else scale.contiguous(), empty(*base.shape)
    numbers = [base.data_ptr(), rows.data_ptr(), where.data_ptr(), pointer(scale), out.data_ptr()]
    call = _Added(*numbers, *base.shape, low, high)
    loaded().foveal_add_rows(ctypes.byref(call))
    return out
