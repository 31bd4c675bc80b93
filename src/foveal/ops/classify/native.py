"""Labels in C: the enlarged logits are never written."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from foveal.kernels.abi import Address, usable
from foveal.kernels.build import loaded, tell
from foveal.ops.classify.spec import factor_of


def supports(logits: Tensor, size: tuple[int, int]) -> bool:
    """Whether C can take the logits."""
    return usable(logits)


def run(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """As the reference."""
    logits = logits.contiguous()
    factor = factor_of(logits.shape, size)
    tell("interpolation", 4 * logits.numel() * factor**2 if factor > 1 else 0)
    out = torch.empty(len(logits), *size, dtype=torch.uint8)
    loaded().foveal_classify(
        Address(logits.data_ptr()),
        ctypes.c_int64(len(logits)),
        *logits.shape[1:],
        factor,
        *size,
        Address(out.data_ptr()),
    )
    return out
