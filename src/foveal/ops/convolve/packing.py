"""A convolution prepared for the C kernels: weights in the order they are read, and the call filled in."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from foveal.geometry.layout import Fill
from foveal.kernels.abi import Address, Rows
from foveal.kernels.build import loaded, pointer
from foveal.ops.convolve.autotune import SQUARES
from foveal.ops.convolve.spec import Convolution, Prologue


class Epilogue(ctypes.Structure):
    """What happens to the result, `Tail` in convolve/convolve.h."""

    _fields_ = [
        *((name, Address) for name in ("bias", "residual", "scale")),
        *((name, ctypes.c_float) for name in ("low", "high")),
    ]


class Call(ctypes.Structure):
    """A convolution as the kernels read it, `Convolution` in convolve/convolve.h."""

    _fields_ = [
        ("in", Rows),
        *((name, Address) for name in ("before_scale", "before_shift")),
        *((name, ctypes.c_float) for name in ("before_low", "before_high")),
        *((name, Address) for name in ("weight", "out")),
        ("tail", Epilogue),
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


class Packed(NamedTuple):
    """Weights in the order in which a kernel reads them, what is left around them, and the call so far."""

    prologue: Prologue | None
    outside: Tensor | Fill
    reach: int
    call: Call
    numbers: tuple[Tensor | None, ...]


def pack(c: Convolution, algorithm: str) -> Packed:
    """Lay out the weights [blocks, lines, OUTPUTS], zeros at the end; lines are [taps or points, C].

    A scale and shift without a clamp go into weights and bias; outside the image then lies what they turn
    into 0. All this happens once, in NumPy, where nobody counts it as work of the network.
    """
    weight, bias, prologue, outside = _array(c.weight), _array(c.bias), c.prologue, None
    assert weight is not None
    if prologue is not None and prologue.linear:
        scale, shift = prologue.scale.double().numpy(), prologue.shift.double().numpy()
        moved = np.einsum("ocij,c->o", weight, shift)
        bias = moved if bias is None else bias + moved
        outside, prologue = _tensor(-shift / scale), None
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
    return Packed(prologue, fill, max(c.halo[:4]), _prepare(c, prologue, packed, *around), (packed, *around))


def _prepare(
    c: Convolution, prologue: Prologue | None, weight: Tensor, bias: Tensor | None, factor: Tensor | None
) -> Call:
    """Fill in what does not change from call to call."""
    scale, shift, low, high = (None, None, 0.0, 0.0) if prologue is None else prologue.parts
    return Call(
        Rows(),
        pointer(scale),
        pointer(shift),
        low,
        high,
        weight.data_ptr(),
        None,
        Epilogue(pointer(bias), None, pointer(factor), c.low, c.high),
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
