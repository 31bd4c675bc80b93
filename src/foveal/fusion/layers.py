"""The layer that a fused network is made of: a convolution with everything around it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

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
    if module.padding_mode != "zeros":
        return None
    bias = None if module.bias is None else module.bias.detach()
    around = module.stride, module.padding, module.dilation, module.groups
    window = window_of(module.weight, *around)
    if window is None or not window.keeps_sides:
        return None
    return window.convolution(module.weight.detach(), bias)


class Window(NamedTuple):
    """The window of a convolution, and the zeros around the map that it slides over.

    Attributes:
        kernel: Rows and columns.
        stride: On both axes.
        before: Zeros before the map (top, left).
        after: Zeros behind it (bottom, right); None if they are computed from its sides.
        dilation: On both axes.
        groups: Of channels.
    """

    kernel: tuple[int, int]
    stride: int
    before: tuple[int, int]
    after: tuple[int, int] | None
    dilation: int
    groups: int

    @property
    def reach(self) -> tuple[int, int]:
        """Samples from the first one that it sees to the last one."""
        return self.dilation * (self.kernel[0] - 1), self.dilation * (self.kernel[1] - 1)

    @property
    def keeps_sides(self) -> bool:
        """Whether ceil(side / stride) samples come out, whatever the side."""
        after = self.after
        return after is not None and all(
            p + q == r for p, q, r in zip(self.before, after, self.reach, strict=True)
        )

    def convolution(self, weight: Tensor, bias: Tensor | None) -> Convolution:
        """Make the convolution."""
        return Convolution(weight, bias, self.stride, self.before, self.dilation, self.groups)


def window_of(weight: Tensor, stride: Any, padding: Any, dilation: Any, groups: int) -> Window | None:
    """Read the arguments of a convolution; None where its axes differ."""
    (down, across), (d, other) = pair(stride), pair(dilation)
    if down != across or d != other or not all(isinstance(n, int) for n in (down, d, groups)):
        return None
    kernel = weight.shape[2], weight.shape[3]
    window = Window(kernel, down, (0, 0), (0, 0), d, groups)
    if padding == "same":
        before = window.reach[0] // 2, window.reach[1] // 2
        after = window.reach[0] - before[0], window.reach[1] - before[1]
        return window._replace(before=before, after=after) if down == 1 else None
    both = (0, 0) if padding == "valid" else pair(padding)
    return window._replace(before=both, after=both)


def pair(value: Any) -> tuple[Any, Any]:
    """Give one number per axis."""
    both = (
        (value, value)
        if not isinstance(value, list | tuple)
        else tuple(value) * (2 if len(value) == 1 else 1)
    )
    return both[0], both[1]


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
