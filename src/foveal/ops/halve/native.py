"""The mean of 2 x 2 samples, in C."""

from __future__ import annotations

import ctypes

from torch import Tensor

from foveal.kernels.abi import Address, as_rows, usable
from foveal.kernels.build import loaded
from foveal.kernels.workspace import empty


def supports(x: Tensor) -> bool:
    """Whether C can take the map."""
    return usable(x) and bool(x.numel())


def run(x: Tensor) -> Tensor:
    """As the reference."""
    rows = as_rows(x)
    images, height, width, channels = rows.shape
    out = empty(images, -(-height // 2), -(-width // 2), channels)
    loaded().foveal_halve(
        Address(rows.data_ptr()), ctypes.c_int64(images), height, width, channels, Address(out.data_ptr())
    )
    return out.permute(0, 3, 1, 2)
