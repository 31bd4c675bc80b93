"""Weights must be numbers: NaN or infinity in one tensor makes every answer wrong, and no label shows it.

One number is excepted: minus infinity in a buffer that no layer multiplies by, as masks of attention have it.
NaN is excepted nowhere.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import nn

ARITHMETIC = {"weight", "bias", "running_mean", "running_var"}
"""Last names of buffers that are weights or statistics of a layer, such as a frozen normalisation's."""


def mask_buffers(network: nn.Module) -> set[str]:
    """Name the buffers of a network that may hold minus infinity: neither parameters nor statistics."""
    return {name for name, _ in network.named_buffers() if name.rpartition(".")[2] not in ARITHMETIC}


def check_finite(
    tensors: Mapping[str, Any],
    where: object,
    kind: type[ValueError] = ValueError,
    masks: Collection[str] = (),
) -> None:
    """Refuse weights, running statistics or moments that hold NaN or infinity.

    Args:
        tensors: Tensors of torch or arrays of numpy, by name; whole numbers and what is neither are passed
            over.
        where: File, or what else they are of; the message begins with it.
        kind: Error to raise.
        masks: Names of tensors that may hold minus infinity, from `mask_buffers`.

    Raises:
        ValueError: One does, or lies on the meta device, where there are no numbers.
    """
    for name, value in tensors.items():
        if getattr(value, "is_meta", False):
            raise kind(f"{where}: '{name}' is on the meta device and has no numbers; load weights first")
        wrong = _count(value, name in masks)
        if wrong:
            raise kind(
                f"{where}: '{name}' holds NaN or infinity ({wrong} of its numbers); give weights that are "
                "finite, such as those of an earlier checkpoint"
            )


def _count(value: Any, is_mask: bool) -> int:
    """Count the numbers of a tensor or an array that are NaN or infinite, or, of a mask, NaN or +infinity."""
    if isinstance(value, np.ndarray):
        return int((~np.isfinite(value)).sum()) if value.dtype.kind in "fc" else 0
    import torch  # programs are read where there is no torch

    if not isinstance(value, torch.Tensor) or not (value.is_floating_point() or value.is_complex()):
        return 0
    value = value.detach()
    value = value if value.layout == torch.strided else value.to_dense()
    value = value.float() if value.element_size() == 1 else value  # floats of 8 bits cannot be asked
    real = value.isfinite()
    if is_mask and not value.is_complex():
        real |= value.isneginf()
    return value.numel() - int(real.sum())
