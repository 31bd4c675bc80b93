"""Patches in C: the kernels of `convolve` read them through the index as they read tiles.

Squares of 2 x 2 and of 4 x 4 outputs of a 3x3 window take the fewest multiplications (Winograd), others are
packed and multiplied; see `foveal/ops/convolve/native.py`.
"""

from __future__ import annotations

import ctypes
import math

from torch import Tensor

from foveal.kernels.abi import MOST_TAPS, Rows, Window, outside_row, usable
from foveal.kernels.build import OBSERVER, loaded, tell
from foveal.kernels.workspace import empty
from foveal.ops.convolve.autotune import SQUARES, algorithms
from foveal.ops.convolve.packing import Call, pack
from foveal.ops.convolve.spec import Convolution
from foveal.ops.convolve_patches.spec import sides_of


def supports(rows: Tensor, index: Tensor, convolution: Convolution, wanted: int | None = None) -> bool:
    """Whether the C kernels can do it: single precision on a CPU, no gradients, no odd groups."""
    c = convolution
    return (c.groups == 1 or (c.depthwise and math.prod(c.kernel) <= MOST_TAPS)) and usable(rows)


def run(rows: Tensor, index: Tensor, convolution: Convolution, wanted: int | None = None) -> Tensor:
    """As the reference."""
    c, (down, across) = convolution, sides_of(index, convolution)
    shape = len(index), down, across, c.outputs
    if 0 in shape:
        return rows.new_empty(shape)
    if OBSERVER.get() is not None:
        outputs = len(index) * down * across if wanted is None else wanted
        tell("convolution", outputs * math.prod(c.weight.shape))
    rows, index = rows.contiguous(), index.contiguous()
    return _depthwise(rows, index, c, shape) if c.depthwise else _multiply(rows, index, c, shape)


def _multiply(rows: Tensor, index: Tensor, c: Convolution, shape: tuple[int, ...]) -> Tensor:
    square = next((name for name, side in SQUARES.items() if shape[1:3] == (side, side)), "direct")
    algorithm = square if square in algorithms(c) else "direct"
    packed = c.prepared(algorithm, lambda: pack(c, algorithm))
    fill, out = packed.outside, empty(*shape)
    outside = fill if isinstance(fill, Tensor) else outside_row(rows.shape[1], fill)
    call = Call.from_buffer_copy(packed.call)
    _write(getattr(call, "in"), rows, index, outside)
    call.out, call.out_height, call.out_width = out.data_ptr(), shape[1], shape[2]
    if algorithm == "direct":
        loaded().foveal_convolve(ctypes.byref(call))
    else:
        loaded().foveal_winograd(ctypes.byref(call), SQUARES[algorithm])
    return out


def _depthwise(rows: Tensor, index: Tensor, c: Convolution, shape: tuple[int, ...]) -> Tensor:
    if c.prologue is not None:
        rows = c.prologue(rows[:, :, None, None])[:, :, 0, 0].contiguous()
    weight = c.prepared("depthwise", lambda: c.weight.detach().float().flatten(1).t().contiguous())
    out, source = empty(*shape), Rows()
    outside = outside_row(rows.shape[1], "zero")
    _write(source, rows, index, outside)
    bias = None if c.bias is None else c.bias.contiguous()
    call = Window(
        source,
        weight.data_ptr(),
        None if bias is None else bias.data_ptr(),
        *(c.low, c.high, out.data_ptr()),
        *(*c.kernel, c.stride, c.dilation, shape[1], shape[2]),
    )
    loaded().foveal_depthwise(ctypes.byref(call))
    return out


def _write(source: Rows, rows: Tensor, index: Tensor, outside: Tensor) -> None:
    """Describe a table and its patches to a kernel."""
    source.own, source.own_rows = rows.data_ptr(), len(rows)
    source.kept, source.means, source.kept_rows = None, None, 0
    source.outside, source.index = outside.data_ptr(), index.data_ptr()
    source.tiles, source.height, source.width = index.shape
    source.channels, source.top, source.left = rows.shape[1], 0, 0
