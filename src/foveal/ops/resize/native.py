"""Resizing in C, from any layout to planes."""

from __future__ import annotations

import ctypes

from torch import Tensor

from foveal.kernels.abi import Address, usable
from foveal.kernels.build import loaded, tell
from foveal.kernels.workspace import empty

MOST = 1 << 31
"""Samples that the channels of a line must have less than."""


def supports(x: Tensor, size: tuple[int, int]) -> bool:
    """Whether C can take the map."""
    lines = x.shape[1] * x.shape[3] if x.ndim == 4 else 0
    return usable(x) and bool(x.numel()) and lines < MOST


def run(x: Tensor, size: tuple[int, int]) -> Tensor:
    """As the reference."""
    images, channels, height, width = x.shape
    out = empty(images, channels, *size)
    tell("interpolation", 4 * out.numel())
    strides = (ctypes.c_int64 * 4)(*x.stride())
    status = loaded().foveal_resize(
        *(Address(x.data_ptr()), strides, ctypes.c_int64(images), channels, height, width),
        *size,
        Address(out.data_ptr()),
    )
    if status:
        raise MemoryError(f"there is no memory to resize a map of {height}x{width} to {size[0]}x{size[1]}")
    return out
