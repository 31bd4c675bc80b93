"""Kernels in reduced precision in C, called one by one."""

from __future__ import annotations

import ctypes
import math

import numpy as np

from foveal.kernels.build import loaded
from foveal.ops.reduced.abi import MOST_TAPS, Convolution, address, samples
from foveal.ops.reduced.fold import Folded, fold
from foveal.ops.reduced.spec import KINDS, Array, Map, ReducedConvolution, padded

PATHS = ("best", "plain", "avx2", "avxvnni", "avx512", "neon")
"""Instructions that a convolution may use, in the order of their numbers in reduced.h."""


def paths(kind: str) -> tuple[str, ...]:
    """Name the instructions that this processor has for a kind of map."""
    number = KINDS.index(kind)
    return tuple(name for k, name in enumerate(PATHS) if k and loaded().foveal_reduced_path(number, k) == k)


def convolve(
    x: Map,
    c: ReducedConvolution,
    residual: Array | None = None,
    path: str = "best",
    folded: Folded | None = None,
) -> Array:
    """As the reference; `folded` is the convolution's, if it is at hand.

    Raises:
        ValueError: Map, residual and convolution do not belong together, or the processor lacks the
            instructions.
    """
    folded = folded or fold(c)
    outputs, sides = padded(c.outputs), c.sides(x)
    shape = x.tiles * sides[0] * sides[1], outputs
    _check(x, c, residual, shape)
    out, outside = np.empty(shape, c.target.dtype), np.ascontiguousarray(x.beyond)
    call = Convolution(
        samples(x, outside, c.padding),
        *map(address, (folded.weight, folded.start, folded.scale, folded.bias, folded.residual_scale)),
        address(residual),
        address(out),
        folded.low,
        folded.high,
        KINDS.index("f32" if c.residual is None else c.residual.kind),
        KINDS.index(c.target.kind),
        *c.kernel,
        c.stride,
        c.dilation,
        *sides,
        outputs,
        PATHS.index(path),
    )
    if c.depthwise:
        loaded().foveal_reduced_depthwise(ctypes.byref(call))
        return out
    failed = loaded().foveal_reduced_convolve(ctypes.byref(call))
    if failed:
        reason = "memory is short" if failed == 1 else f"this processor has only {paths(x.format.kind)}"
        raise ValueError(f"a {x.format.kind} convolution by path {path!r} is impossible: {reason}")
    return out


def _check(x: Map, c: ReducedConvolution, residual: Array | None, shape: tuple[int, int]) -> None:
    """Refuse what the kernels would read beyond."""
    if c.depthwise and math.prod(c.kernel) > MOST_TAPS:
        raise ValueError(f"depthwise windows have at most {MOST_TAPS} samples, this one is {c.kernel}")
    channels = padded(c.outputs if c.depthwise else c.weight.shape[1])
    if x.format != c.source or x.channels != channels:
        raise ValueError(
            f"the map is {x.format} with {x.channels} channels, "
            f"the convolution takes {c.source} with {channels}"
        )
    if (residual is None) != (c.residual is None):
        raise ValueError("a residual must be given exactly where the convolution has a format for it")
    if residual is not None and c.residual is not None:
        if residual.shape != shape or residual.dtype != c.residual.dtype:
            raise ValueError(
                f"the residual is {residual.dtype} {list(residual.shape)}, "
                f"it must be {c.residual.dtype} {list(shape)}"
            )
