"""Convolve a map, with everything that networks do around a convolution.

Before it, every channel may be scaled, shifted and clamped (a BatchNorm and its activation); after it, a
bias and a scaled residual are added and the sum is clamped (BatchNorm folded, shortcut, activation). On
tiles, windows reach into the neighbours by the rule of `fetch_halo`; samples outside the image count as 0,
after what comes before the convolution.
"""

from __future__ import annotations

from typing import Any

from torch.overrides import handle_torch_function, has_torch_function

from foveal.ops.convolve import native, reference, spec, torch
from foveal.ops.convolve.autotune import ALGORITHMS
from foveal.ops.convolve.spec import Convolution, Prologue
from foveal.ops.op import Op, table

__all__ = ["ALGORITHMS", "Convolution", "Prologue", "convolve", "convolved"]

convolve = Op("convolve", spec.check, table(native.run, native.supports, torch.run, reference.run))


def convolved(x: Any, convolution: Convolution, residual: Any = None) -> Any:
    """Convolve a dense map [N, C, H, W]; on tiles, what the rule in foveal/tiles/windows.py says."""
    if has_torch_function((x, residual)):
        return handle_torch_function(convolved, (x, residual), x, convolution, residual)
    return convolve(x, None, convolution, residual)
