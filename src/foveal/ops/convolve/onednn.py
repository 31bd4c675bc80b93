"""Convolution with PyTorch's own kernels (oneDNN), bias and residual fused as its compiler does.

Where a convolution needs no border, as every 1x1 one, oneDNN's hand-tuned kernels are hard to beat; elsewhere
the border is gathered first. The operations are those that PyTorch's compiler emits for a CPU. They are not
part of its public interface, so their presence is checked and nothing depends on them. The clamp follows as a
pass of its own: oneDNN's fused ones turn NaN into 0, and a network that overflows would give labels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from foveal.geometry.layout import Layout
from foveal.ops.convolve.spec import Convolution
from foveal.ops.fetch_halo import fetch_halo


def possible(c: Convolution) -> bool:
    """Whether oneDNN is there, and adds the residual as it is."""
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    plain = c.residual_scale is None or bool((c.residual_scale == 1).all())
    return there and plain


def run(
    x: Tensor, layout: Layout | None, c: Convolution, residual: Tensor | None, kept: Tensor | None
) -> Tensor:
    """Convolve; arguments and result as of the reference."""
    if c.prologue is not None:
        x, kept = c.prologue(x), None if kept is None else c.prologue(kept)
    padding = [0, 0]
    if layout is not None:
        if not c.halo.empty or (c.kernel != (1, 1) and layout.held(x.shape[2]) is not None):
            x = fetch_halo(x, layout, c.halo, kept)
    else:
        padding = list(c.padding)
    window = padding, [c.stride] * 2, [c.dilation] * 2
    convolution = torch.ops.mkldnn._convolution_pointwise
    weight = c.prepared("onednn", lambda: _reorder(c, list(x.shape), *window))
    if residual is None:
        out = convolution(x, weight, c.bias, *window, c.groups, "none", [], "")
    else:
        out = convolution.binary(x, residual, weight, c.bias, *window, c.groups, "add", 1.0, None, [], "")
    return out if (c.low, c.high) == (-math.inf, math.inf) else out.clamp_(c.low, c.high)


def _reorder(c: Convolution, shape: list[int], *window: Any) -> Tensor:
    """Lay the weights out as oneDNN wants them for a map of a shape."""
    weight = c.weight.contiguous(memory_format=torch.channels_last)
    return torch.ops.mkldnn._reorder_convolution_weight(weight, *window, c.groups, shape)
