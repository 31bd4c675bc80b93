"""The layer that a fused network is made of: a convolution with everything around it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from foveal.ops import Convolution, Prologue, convolved

NUMBERS = ("weight", "bias", "prologue_scale", "prologue_shift", "residual_scale")


class Convolve(nn.Module):
    """A convolution with norms, residual and activation, on maps and on tiles.

    Its numbers are buffers, so that the layer moves and saves as any other.
    """

    weight: Tensor
    bias: Tensor | None
    prologue_scale: Tensor | None
    prologue_shift: Tensor | None
    residual_scale: Tensor | None

    def __init__(self, convolution: Convolution) -> None:
        super().__init__()
        prologue = convolution.prologue
        scale, shift = (None, None) if prologue is None else (prologue.scale, prologue.shift)
        values = (convolution.weight, convolution.bias, scale, shift, convolution.residual_scale)
        for name, value in zip(NUMBERS, values, strict=True):
            self.register_buffer(name, value)
        self._limits = (-math.inf, math.inf) if prologue is None else (prologue.low, prologue.high)
        self._convolution = convolution

    @property
    def convolution(self) -> Convolution:
        """What is computed, with the numbers that the layer has now."""
        if self._convolution.weight is not self.weight:
            self._convolution = replace(
                self._convolution,
                weight=self.weight,
                bias=self.bias,
                prologue=self._prologue(),
                residual_scale=self.residual_scale,
            )
        return self._convolution

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """Forget weights that were laid out for the kernels: they are overwritten in place."""
        super()._load_from_state_dict(*args, **kwargs)
        self._convolution = replace(self._convolution)

    def __getstate__(self) -> dict[str, object]:
        """Leave out what is laid out for the kernels: it holds addresses."""
        return vars(self) | {"_convolution": replace(self._convolution)}

    def _prologue(self) -> Prologue | None:
        if self.prologue_scale is None or self.prologue_shift is None:
            return None
        return Prologue(self.prologue_scale, self.prologue_shift, *self._limits)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Map [N, C, H, W] to [N, O, H / stride, W / stride], sides rounded up."""
        return convolved(x, self.convolution, residual)

    def extra_repr(self) -> str:
        """Say what is computed."""
        c = self._convolution
        rows, columns = c.kernel
        around = [
            name
            for name, there in (
                ("prologue", c.prologue is not None),
                ("residual", c.residual_scale is not None),
                ("clamp", (c.low, c.high) != (-math.inf, math.inf)),
            )
            if there
        ]
        return (
            f"{c.weight.shape[1] * c.groups} -> {len(c.weight)}, {rows}x{columns}, stride {c.stride} {around}"
        )


def untouched(module: nn.Module) -> bool:
    """Whether a module has neither hooks nor a `forward` of its own, as by `run_dense`."""
    return not (module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def norm_of(module: nn.BatchNorm2d) -> tuple[Tensor, Tensor] | None:
    """Return scale and shift [C] of a norm with the statistics that it has learned; None without them."""
    mean, var = module.running_mean, module.running_var
    if mean is None or var is None:
        return None
    scale = (var.double() + module.eps).rsqrt()
    if module.weight is not None:
        scale = scale * module.weight.detach().double()
    shift = -mean.double() * scale
    return scale, shift if module.bias is None else shift + module.bias.detach().double()


def as_convolution(module: nn.Conv2d) -> Convolution | None:
    """Write a layer as a convolution that keeps ceil(side / stride) samples; None if it is no such one."""
    stride, dilation, kernel = module.stride, module.dilation, module.kernel_size
    start = getattr(module, "start", module.padding)
    if type(module).forward is not nn.Conv2d.forward and not hasattr(module, "start"):
        return None
    if module.padding_mode != "zeros" or stride[0] != stride[1] or dilation[0] != dilation[1]:
        return None
    if start == "same":
        start = (
            tuple(d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True)) if stride[0] == 1 else None
        )
    if start is None or isinstance(start, str):
        return None
    symmetric = all(2 * p == d * (k - 1) for p, k, d in zip(start, kernel, dilation, strict=True))
    if not (symmetric or hasattr(module, "start") or module.padding == "same"):
        return None
    bias = None if module.bias is None else module.bias.detach()
    return Convolution(module.weight.detach(), bias, stride[0], tuple(start), dilation[0], module.groups)


def scaled(c: Convolution, scale: Tensor, shift: Tensor) -> Convolution:
    """Follow a convolution (and its residual) by scale and shift per output [O]."""
    kind = c.weight.dtype
    bias = shift if c.bias is None else c.bias.double() * scale + shift
    residual = c.residual_scale
    return replace(
        c,
        weight=(c.weight.double() * scale.view(-1, 1, 1, 1)).to(kind),
        bias=bias.to(kind),
        residual_scale=None if residual is None else (residual.double() * scale).to(kind),
    )


def with_residual(c: Convolution) -> Convolution:
    """Add a residual to a convolution."""
    return replace(c, residual_scale=torch.ones(len(c.weight), dtype=c.weight.dtype, device=c.weight.device))
