"""Convolution in C: windows are read through the index, and everything around is done in the same pass.

Three algorithms compute it. `direct` takes any window. `winograd2` and `winograd4` take 3x3 windows of stride
1 and need 2.25 and 4 times fewer multiplications (Lavin and Gray, CVPR 2016); their error is some ten times
that of rounding. Depthwise windows have a kernel of their own.
"""

from __future__ import annotations

import ctypes
import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from foveal.geometry.layout import Fill, Layout
from foveal.kernels.abi import MOST_TAPS, Address, Rows, Source, Window, as_rows, usable
from foveal.kernels.build import OBSERVER, loaded, pointer, tell
from foveal.kernels.workspace import empty
from foveal.ops.convolve import onednn
from foveal.ops.convolve.autotune import SQUARES, algorithms, choose
from foveal.ops.convolve.spec import Before, Convolution


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


TRANSFORMS = {
    2: ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0)),
    4: (
        (1 / 4, 0.0, 0.0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0.0, 0.0, 1.0),
    ),
}
"""Weights at the points of evaluation, the matrices G of Lavin and Gray, equations 9 and 17."""


def fits(x: Tensor, layout: Layout | None, convolution: Convolution, *rest: Any) -> bool:
    """Whether the C kernels can do it: single precision on a CPU, no gradients, no odd groups."""
    c = convolution
    return (c.groups == 1 or (c.depthwise and math.prod(c.kernel) <= MOST_TAPS)) and usable(x, layout)


def native(
    x: Tensor,
    layout: Layout | None,
    convolution: Convolution,
    residual: Tensor | None = None,
    kept: Tensor | None = None,
    algorithm: str | None = None,
) -> Tensor:
    """As the reference, by the algorithm that is named, or was measured or is expected to be fastest.

    Raises:
        ValueError: The algorithm that is named cannot compute this convolution.
    """
    c = convolution
    shape = x.shape[0], c.weight.shape[0], *(-(-side // c.stride) for side in x.shape[2:])
    if 0 in shape:
        return x.new_empty(shape)
    _check(x, c, residual, shape)
    given = _Call(x, layout, c, residual, kept, shape)
    if algorithm is None:
        algorithm = choose(x, layout, c, partial(_run, given))
    elif algorithm not in algorithms(c):
        possible = ", ".join(algorithms(c))
        raise ValueError(f"{algorithm} cannot compute this convolution; possible are {possible}")
    if OBSERVER.get() is not None:
        tell("convolution", math.prod(shape) * math.prod(c.weight.shape[1:]))
    return _run(given, algorithm)


def _check(x: Tensor, c: Convolution, residual: Tensor | None, shape: tuple[int, ...]) -> None:
    """Refuse what the kernels would read beyond."""
    channels = c.weight.shape[1] * c.groups
    if x.shape[1] != channels:
        raise ValueError(f"the map has {x.shape[1]} channels, the convolution takes {channels}")
    if residual is not None and residual.shape != shape:
        raise ValueError(
            f"the residual is {list(residual.shape)} and the result {list(shape)}; a network that adds maps "
            "of different sizes needs an image whose sides are multiples of its stride"
        )


class _Call(NamedTuple):
    """What is convolved, by what."""

    x: Tensor
    layout: Layout | None
    convolution: Convolution
    residual: Tensor | None
    kept: Tensor | None
    shape: tuple[int, ...]


def _run(given: _Call, algorithm: str) -> Tensor:
    x, layout, c, residual, kept, _ = given
    if algorithm == "onednn":
        return onednn.run(x, layout, c, residual, kept)
    return _depthwise(given) if c.depthwise else _multiply(given, algorithm)


def _multiply(given: _Call, algorithm: str) -> Tensor:
    """Run a kernel that multiplies matrices."""
    x, layout, c, residual, kept, shape = given
    packed = c._packed.get(algorithm) or c._packed.setdefault(algorithm, _pack(c, algorithm))
    change = None if packed.before is None else packed.before.parts
    source = Source(x, layout, packed.reach, packed.outside, kept, change)
    out, rows = _empty(shape), None if residual is None else as_rows(residual)
    call = _Convolution.from_buffer_copy(packed.call)
    source.write(getattr(call, "in"), *c.padding)
    call.out, call.tail.residual = out.data_ptr(), pointer(rows)
    call.out_height, call.out_width = shape[2:]
    if algorithm == "direct":
        loaded().foveal_convolve(ctypes.byref(call))
    else:
        loaded().foveal_winograd(ctypes.byref(call), SQUARES[algorithm])
    return out


class _Packed(NamedTuple):
    """Weights in the order in which a kernel reads them, what is left around them, and the call so far."""

    before: Before | None
    outside: Tensor | Fill
    reach: int
    call: _Convolution
    numbers: tuple[Tensor | None, ...]


def _pack(c: Convolution, algorithm: str) -> _Packed:
    """Lay out the weights [blocks, lines, OUTPUTS], zeros at the end; lines are [taps or points, C].

    A scale and shift without a clamp go into weights and bias; outside the image then lies what they turn
    into 0. All this happens once, in NumPy, where nobody counts it as work of the network.
    """
    weight, bias, before, outside = _array(c.weight), _array(c.bias), c.before, None
    assert weight is not None
    if before is not None and before.linear:
        scale, shift = before.scale.double().numpy(), before.shift.double().numpy()
        moved = np.einsum("ocij,c->o", weight, shift)
        bias = moved if bias is None else bias + moved
        outside, before = _tensor(-shift / scale), None
        weight = weight * scale[None, :, None, None]
    if algorithm in SQUARES:
        transform = np.array(TRANSFORMS[SQUARES[algorithm]])
        weight = np.einsum("pi,ocij,qj->ocpq", transform, weight, transform, optimize=True)
    block = loaded().foveal_outputs()
    lines = weight.transpose(2, 3, 1, 0).reshape(-1, len(weight))
    lines = np.pad(lines, ((0, 0), (0, -len(weight) % block)))
    packed = _tensor(lines.reshape(len(lines), -1, block).transpose(1, 0, 2))
    factor = c.residual_scale
    if factor is not None:
        factor = None if bool((factor == 1).all()) else factor.detach().float().contiguous()
    around = None if bias is None else _tensor(bias), factor
    fill: Fill | Tensor = "zero" if outside is None else outside
    return _Packed(before, fill, max(c.halo[:4]), _prepare(c, before, packed, *around), (packed, *around))


def _prepare(
    c: Convolution, before: Before | None, weight: Tensor, bias: Tensor | None, factor: Tensor | None
) -> _Convolution:
    """Fill in what does not change from call to call."""
    scale, shift, low, high = (None, None, 0.0, 0.0) if before is None else before.parts
    return _Convolution(
        Rows(),
        pointer(scale),
        pointer(shift),
        low,
        high,
        weight.data_ptr(),
        None,
        _Tail(pointer(bias), None, pointer(factor), c.low, c.high),
        *c.kernel,
        c.stride,
        c.dilation,
        0,
        0,
        len(c.weight),
    )


def _array(x: Tensor | None) -> Any:
    return None if x is None else x.detach().double().numpy()


def _tensor(x: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))


def _empty(shape: tuple[int, ...]) -> Tensor:
    """Memory for a map [B, O, h, w], channels last."""
    return empty(shape[0], *shape[2:], shape[1]).permute(0, 3, 1, 2)


def _depthwise(given: _Call) -> Tensor:
    """Filter every channel by itself; what the kernel cannot fuse is done around it."""
    x, layout, c, residual, kept, shape = given
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
