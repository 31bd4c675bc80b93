"""Weights must be numbers: NaN or infinity in one tensor makes every answer wrong, and no label shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def check_finite(tensors: Mapping[str, Any], where: object, kind: type[ValueError] = ValueError) -> None:
    """Refuse weights, running statistics or moments that hold NaN or infinity.

    Args:
        tensors: Tensors of torch or arrays of numpy, by name; whole numbers and what is neither are passed
            over.
        where: File, or what else they are of; the message begins with it.
        kind: Error to raise.

    Raises:
        ValueError: One does, or lies on the meta device, where there are no numbers.
    """
    for name, value in tensors.items():
        if getattr(value, "is_meta", False):
            raise kind(f"{where}: '{name}' is on the meta device and has no numbers; load weights first")
        wrong = _count(value)
        if wrong:
            raise kind(
                f"{where}: '{name}' holds NaN or infinity ({wrong} of its numbers); give weights that are "
                "finite, such as those of an earlier checkpoint"
            )


def _count(value: Any) -> int:
    """Count the numbers of a tensor or an array that are NaN or infinite."""
    if isinstance(value, np.ndarray):
        return int((~np.isfinite(value)).sum()) if value.dtype.kind in "fc" else 0
    import torch  # programs are read where there is no torch

    if not isinstance(value, torch.Tensor) or not (value.is_floating_point() or value.is_complex()):
        return 0
    value = value.detach()
    value = value if value.layout == torch.strided else value.to_dense()
    value = value.float() if value.element_size() == 1 else value  # floats of 8 bits cannot be asked
    return value.numel() - int(value.isfinite().sum())
