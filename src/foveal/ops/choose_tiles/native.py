"""Choosing tiles in C."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from foveal.kernels.abi import Address
from foveal.kernels.build import available, loaded


def supports(values: Tensor, is_open: Tensor, isolated: float, count: int) -> bool:
    """Whether C can take the maps."""
    return available() and values.device.type == "cpu" and bool(values.numel())


def run(values: Tensor, is_open: Tensor, isolated: float, count: int) -> Tensor:
    """As the reference.

    Raises:
        MemoryError: There is no memory.
    """
    given, costs = values.double().contiguous(), is_open.double().contiguous()
    chosen = torch.empty(values.shape, dtype=torch.bool)
    maps = (Address(x.data_ptr()) for x in (given, costs))
    rows, columns = values.shape
    share, most, out = ctypes.c_double(isolated), ctypes.c_int64(count), Address(chosen.data_ptr())
    if loaded().foveal_choose_tiles(*maps, rows, columns, share, most, out):
        raise MemoryError(f"there is no memory to choose among {values.numel()} tiles")
    return chosen
