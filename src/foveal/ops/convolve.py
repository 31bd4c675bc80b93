"""Convolve a map, with everything that networks do around a convolution.

Before it, every channel may be scaled, shifted and clamped (a BatchNorm and its activation); after it, a bias
and a scaled residual are added and the sum is clamped (BatchNorm folded, shortcut, activation). On tiles,
windows reach into the neighbours by the rule of `fetch_halo`; samples outside the image count as 0, after what
comes before the convolution.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function

from foveal.ops.fetch_halo import fetch_halo
from foveal.ops.layout import Halo, Layout
from foveal.ops.native import loaded, pointer, tell
from foveal.ops.op import Op
from foveal.ops.rows import MOST_TAPS, Address, Rows, Source, Window, as_rows, usable


@dataclass(frozen=True, eq=False)
class Before:
    """What happens to the input: clamp(scale * x + shift, low, high).

    Attributes:
        scale: Per channel [C].
        shift: Per channel [C].
        low: Smallest value.
        high: Largest value.
    """

    scale: Tensor
    shift: Tensor
    low: float = -math.inf
    high: float = math.inf

    @property
    def parts(self) -> tuple[Tensor, Tensor, float, float]:
        """Scale, shift, low and high."""
        return self.scale, self.shift, self.low, self.high

    def __call__(self, x: Tensor) -> Tensor:
        """Apply to a map [B, C, H, W]."""
        x = x * self.scale.view(1, -1, 1, 1) + self.shift.view(1, -1, 1, 1)
        return x if (self.low, self.high) == (-math.inf, math.inf) else x.clamp(self.low, self.high)


@dataclass(frozen=True, eq=False)
class Convolution:
    """A convolution with its surroundings.

    Attributes:
        weight: [O, C / groups, rows, columns].
        bias: [O], or None.
        stride: Of the window, the same on both axes.
        padding: Zeros before the map (top, left). Behind it there are as many as keep ceil(side / stride).
        dilation: Of the window, the same on both axes.
        groups: Groups of channels.
        before: What happens to the input.
        residual_scale: Factor of the residual per output [O]; None for 1.
        low: Smallest output.
        high: Largest output.
    """

    weight: Tensor
    bias: Tensor | None = None
    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    dilation: int = 1
    groups: int = 1
    before: Before | None = None
    residual_scale: Tensor | None = None
    low: float = -math.inf
    high: float = math.inf
    _packed: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def kernel(self) -> tuple[int, int]:
        """Rows and columns of the window."""
        return self.weight.shape[2], self.weight.shape[3]

    @cached_property
    def halo(self) -> Halo:
        """Samples that windows reach beyond a tile."""
        top, left = self.padding
        bottom, right = (
            max(0, self.dilation * (k - 1) - p - (self.stride - 1))
            for k, p in zip(self.kernel, self.padding, strict=True)
        )
        return Halo(left, right, top, bottom)

    @property
    def depthwise(self) -> bool:
        """Whether every channel has its own window."""
        return self.groups == len(self.weight) == self.groups * self.weight.shape[1]

    def finish(self, x: Tensor, residual: Tensor | None) -> Tensor:
        """Add the residual and clamp."""
        if residual is not None:
            scale = self.residual_scale
            x = x + (residual if scale is None else residual * scale.view(1, -1, 1, 1))
        return x if (self.low, self.high) == (-math.inf, math.inf) else x.clamp(self.low, self.high)


def reference(
    x: Tensor,
    layout: Layout | None,
    convolution: Convolution,
    residual: Tensor | None = None,
    kept: Tensor | None = None,
) -> Tensor:
    """Convolve tiles, or a dense map.

    Args:
        x: Tiles computed now [B, C, side, side], or maps [N, C, H, W].
        layout: Where the tiles lie; None for dense maps.
        convolution: What is computed.
        residual: Added before the clamp, of the result's shape.
        kept: Tiles from an earlier pass, at the same point of the network.

    Returns:
        [B, O, side / stride, side / stride]; for maps sides / stride, rounded up.
    """
    return _stock(x, layout, convolution, residual, kept, "reference")


def cpu(
    x: Tensor,
    layout: Layout | None,
    convolution: Convolution,
    residual: Tensor | None = None,
    kept: Tensor | None = None,
) -> Tensor:
    """As the reference, with borders fetched by gathering."""
    return _stock(x, layout, convolution, residual, kept, None)


def _stock(
    x: Tensor,
    layout: Layout | None,
    convolution: Convolution,
    residual: Tensor | None,
    kept: Tensor | None,
    impl: str | None,
) -> Tensor:
    """Border the map, then use PyTorch's own convolution."""
    c = convolution
    if c.before is not None:
        x, kept = c.before(x), None if kept is None else c.before(kept)
    halo = c.halo
    if layout is None:
        (top, left), (height, width) = c.padding, x.shape[2:]
        bottom, right = (
            max(0, (-(-n // c.stride) - 1) * c.stride + c.dilation * (k - 1) + 1 - p - n)
            for n, k, p in zip((height, width), c.kernel, c.padding, strict=True)
        )
        if (top, left) == (bottom, right):
            padding = top, left
        else:
            x, padding = F.pad(x, (left, right, top, bottom)), (0, 0)
    else:
        padding = 0, 0
        if not halo.empty or (c.kernel != (1, 1) and layout.held(x.shape[2]) is not None):
            x = fetch_halo(x, layout, halo, kept, impl=impl)
    x = F.conv2d(x, c.weight, c.bias, c.stride, padding, c.dilation, c.groups)
    return c.finish(x, residual)


class _Tail(ctypes.Structure):
    _fields_ = [
        *((name, Address) for name in ("bias", "residual", "scale")),
        *((name, ctypes.c_float) for name in ("low", "high")),
    ]


class _Convolution(ctypes.Structure):
    _fields_ = [
        ("in", Rows),
        *((name, Address) for name in ("before_scale", "before_shift")),
        *((name, ctypes.c_float) for name in ("before_low", "before_high")),
        *((name, Address) for name in ("weight", "out")),
        ("tail", _Tail),
        *((name, ctypes.c_int32) for name in ("rows", "columns", "stride", "dilation")),
        *((name, ctypes.c_int32) for name in ("out_height", "out_width", "outputs")),
    ]


def fits(x: Tensor, layout: Layout | None, convolution: Convolution, *rest: Any) -> bool:
    """Whether the C kernels can do it: single precision on a CPU, no gradients, no odd groups."""
    c = convolution
    return (c.groups == 1 or (c.depthwise and math.prod(c.kernel) <= MOST_TAPS)) and usable(x)


def native(
    x: Tensor,
    layout: Layout | None,
    convolution: Convolution,
    residual: Tensor | None = None,
    kept: Tensor | None = None,
) -> Tensor:
    """As the reference, in C: windows are read through the index, and everything is done in one pass."""
    c = convolution
    shape = len(x), len(c.weight), *(-(-side // c.stride) for side in x.shape[2:])
    if 0 in shape:
        return x.new_empty(shape)
    tell("convolution", math.prod(shape) * math.prod(c.weight.shape[1:]))
    if c.depthwise:
        return _depthwise(x, layout, c, residual, kept, shape)
    packed = c._packed.get("direct") or c._packed.setdefault("direct", _pack(c))
    before = packed.before
    change = (None, None, 0.0, 0.0) if before is None else before.parts
    source = Source(
        x, layout, max(c.halo[:4]), "zero", kept, None if before is None else before.parts, packed.outside
    )
    out = _empty(shape)
    rows = None if residual is None else as_rows(residual)
    call = _Convolution(
        source.struct(*c.padding),
        *map(pointer, change[:2]),
        *change[2:],
        packed.weight.data_ptr(),
        out.data_ptr(),
        _Tail(pointer(packed.bias), pointer(rows), pointer(c.residual_scale), c.low, c.high),
        *(*c.kernel, c.stride, c.dilation),
        *(shape[2], shape[3], shape[1]),
    )
    loaded().foveal_convolve(ctypes.byref(call))
    return out


class _Packed(NamedTuple):
    """Weights in the order in which the kernel reads them, and what is left around them."""

    weight: Tensor
    bias: Tensor | None
    before: Before | None
    outside: Tensor | None


def _pack(c: Convolution) -> _Packed:
    """Lay out the weights [blocks, rows * columns * C, OUTPUTS], zeros at the end.

    A scale and shift without a clamp go into weights and bias; outside the image then lies what they turn
    into 0.
    """
    weight, bias, before, outside = c.weight.detach().float(), c.bias, c.before, None
    if before is not None and math.isinf(before.low) and math.isinf(before.high) and before.scale.all():
        shift = torch.einsum("ocij,c->o", weight.double(), before.shift.double())
        bias = (shift if bias is None else shift + bias).float()
        outside = (-before.shift / before.scale).contiguous()
        weight, before = weight * before.scale.view(1, -1, 1, 1), None
    block = loaded().foveal_outputs()
    lines = weight.permute(2, 3, 1, 0).flatten(0, 2)
    lines = F.pad(lines, (0, -len(weight) % block))
    packed = lines.unflatten(1, (-1, block)).transpose(0, 1).contiguous()
    return _Packed(packed, None if bias is None else bias.detach().float().contiguous(), before, outside)


def _empty(shape: tuple[int, ...]) -> Tensor:
    """Memory for a map [B, O, h, w], channels last."""
    return torch.empty(shape[0], *shape[2:], shape[1]).permute(0, 3, 1, 2)


def _depthwise(
    x: Tensor,
    layout: Layout | None,
    c: Convolution,
    residual: Tensor | None,
    kept: Tensor | None,
    shape: tuple[int, ...],
) -> Tensor:
    """Filter every channel by itself; what the kernel cannot fuse is done around it."""
    if c.before is not None:
        x, kept = c.before(x), None if kept is None else c.before(kept)
    weight = c._packed.get("depthwise")
    if weight is None:
        weight = c.weight.detach().float().flatten(1).t().contiguous()
        c._packed["depthwise"] = weight
    limits = (c.low, c.high) if residual is None else (-math.inf, math.inf)
    source, out = Source(x, layout, max(c.halo[:4]), kept=kept), _empty(shape)
    call = Window(
        source.struct(*c.padding),
        weight.data_ptr(),
        pointer(c.bias),
        *limits,
        out.data_ptr(),
        *(*c.kernel, c.stride, c.dilation, shape[2], shape[3]),
    )
    loaded().foveal_depthwise(ctypes.byref(call))
    return out if residual is None else c.finish(out, residual)


def convolved(x: Any, convolution: Convolution, residual: Any = None) -> Any:
    """Convolve a dense map [N, C, H, W]; on tiles, what the rule in foveal/tiles/windows.py says."""
    if has_torch_function((x, residual)):
        return handle_torch_function(convolved, (x, residual), x, convolution, residual)
    return convolve(x, None, convolution, residual)


convolve = Op(reference, cpu=cpu, native=native, fits=fits)
