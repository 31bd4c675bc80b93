"""The mean of 2 x 2 samples, by PyTorch."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def run(x: Tensor) -> Tensor:
    """As the reference."""
    return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) if max(x.shape[2:]) > 1 else x
