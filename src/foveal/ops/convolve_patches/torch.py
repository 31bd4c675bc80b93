"""Patches of one output as one product of matrices; others by PyTorch's convolution."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from foveal.ops.convolve.spec import Convolution
from foveal.ops.convolve_patches import reference
from foveal.ops.convolve_patches.spec import sides_of


def run(rows: Tensor, index: Tensor, convolution: Convolution, wanted: int | None = None) -> Tensor:
    """As the reference."""
    c = convolution
    whole = tuple(index.shape[1:]) == c.kernel and c.groups == 1
    if sides_of(index, c) != (1, 1) or not whole or not len(index):
        return reference.run(rows, index, c)
    columns = reference.gathered(rows, index, c).flatten(1).t()[None, :, :, None]
    out = F.conv2d(columns, c.weight.flatten(1)[:, :, None, None], c.bias)
    return c.finish(out, None)[0, :, :, 0].t()[:, None, None]
