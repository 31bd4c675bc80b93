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

from torch import Tensor

from foveal.geometry.layout import Layout
from foveal.kernels.abi import MOST_TAPS, Source, Window, as_rows, usable
from foveal.kernels.build import OBSERVER, loaded, pointer, tell
from foveal.kernels.workspace import empty
from foveal.ops.convolve import onednn
from foveal.ops.convolve.autotune import SQUARES, algorithms, choose
from foveal.ops.convolve.packing import Call, pack
from foveal.ops.convolve.spec import Convolution, check, result_shape


def supports(x: Tensor, layout: Layout | None, convolution: Convolution, *rest: Any) -> bool:
    """Whether the C kernels can do it: single precision on a CPU, no gradients, no odd groups."""
    c = convolution
    return (c.groups == 1 or (c.depthwise and math.prod(c.kernel) <= MOST_TAPS)) and usable(x, layout)


def run(
    x: Tensor,
    layout: Layout | None,
    convolution: Convolution,
    residual: Tensor | None = None,
    kept: Tensor | None = None,
) -> Tensor:
    """As the reference, by the algorithm that was measured or is expected to be fastest."""
    given = _Call(x, layout, convolution, residual, kept, result_shape(x, convolution))
    if 0 in given.shape:
        return x.new_empty(given.shape)
    return _told(given, choose(x, layout, convolution, partial(_run, given)))


def by_algorithm(
    x: Tensor,
    layout: Layout | None,
    convolution: Convolution,
    residual: Tensor | None = None,
    kept: Tensor | None = None,
    *,
    algorithm: str,
) -> Tensor:
    """As the reference, by the algorithm of a name in `ALGORITHMS`.

    Raises:
        ValueError: It cannot compute this convolution, or the arguments do not belong together.
    """
    check(x, layout, convolution, residual, kept)
    possible = algorithms(convolution)
    if algorithm not in possible:
        raise ValueError(f"{algorithm} cannot compute this convolution; possible are {', '.join(possible)}")
    given = _Call(x, layout, convolution, residual, kept, result_shape(x, convolution))
    return x.new_empty(given.shape) if 0 in given.shape else _told(given, algorithm)


class _Call(NamedTuple):
    """What is convolved, by what."""

    x: Tensor
    layout: Layout | None
    convolution: Convolution
    residual: Tensor | None
    kept: Tensor | None
    shape: tuple[int, ...]


def _told(given: _Call, algorithm: str) -> Tensor:
    """Run, and tell whoever counts the work."""
    if OBSERVER.get() is not None:
        tell("convolution", math.prod(given.shape) * math.prod(given.convolution.weight.shape[1:]))
    return _run(given, algorithm)


def _run(given: _Call, algorithm: str) -> Tensor:
    x, layout, c, residual, kept, _ = given
    if algorithm == "onednn":
        return onednn.run(x, layout, c, residual, kept)
    return _depthwise(given) if c.depthwise else _multiply(given, algorithm)


def _multiply(given: _Call, algorithm: str) -> Tensor:
    """Run a kernel that multiplies matrices."""
    x, layout, c, residual, kept, shape = given
    packed = c.prepared(algorithm, lambda: pack(c, algorithm))
    change = None if packed.prologue is None else packed.prologue.parts
    source = Source(x, layout, packed.reach, packed.outside, kept, change)
    out, rows = _empty(shape), None if residual is None else as_rows(residual)
    call = Call.from_buffer_copy(packed.call)
    source.write(getattr(call, "in"), *c.padding)
    call.out, call.tail.residual = out.data_ptr(), pointer(rows)
    call.out_height, call.out_width = shape[2:]
    if algorithm == "direct":
        loaded().foveal_convolve(ctypes.byref(call))
    else:
        loaded().foveal_winograd(ctypes.byref(call), SQUARES[algorithm])
    return out


def _empty(shape: tuple[int, ...]) -> Tensor:
    """Memory for a map [B, O, h, w], channels last."""
    return empty(shape[0], *shape[2:], shape[1]).permute(0, 3, 1, 2)


def _depthwise(given: _Call) -> Tensor:
    """Filter every channel by itself; what the kernel cannot fuse is done around it."""
    x, layout, c, residual, kept, shape = given
    if c.prologue is not None:
        x, kept = c.prologue(x), None if kept is None else c.prologue(kept)
    weight = c.prepared("depthwise", lambda: c.weight.detach().float().flatten(1).t().contiguous())
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
