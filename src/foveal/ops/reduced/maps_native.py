"""Kernels for maps in reduced precision in C that need no matrix product, called one by one."""

from __future__ import annotations

import ctypes
import math

import numpy as np

from foveal.kernels.build import loaded
from foveal.ops.reduced import abi
from foveal.ops.reduced.abi import address
from foveal.ops.reduced.spec import KINDS, Array, Floats, Format, Map, ReducedConvolution, Steps, padded


def max_pool(x: Map, c: ReducedConvolution) -> Array:
    """Return the largest sample of every window [R, C]; the geometry is a convolution's.

    Raises:
        ValueError: The window has more samples than the kernel has room for.
    """
    if math.prod(c.kernel) > abi.MOST_TAPS:
        raise ValueError(f"windows have at most {abi.MOST_TAPS} samples, this one is {c.kernel}")
    sides, outside = c.sides(x), np.ascontiguousarray(x.beyond)
    out = np.empty((x.tiles * math.prod(sides), x.channels), x.format.dtype)
    call = abi.Pool(abi.samples(x, outside, c.padding), address(out), *c.kernel, c.stride, c.dilation, *sides)
    loaded().foveal_reduced_max_pool(ctypes.byref(call))
    return out


def enlarge(
    x: Map, factor: int, target: Format, more: tuple[Array, Format] | None = None, low: float = -math.inf
) -> Array:
    """Enlarge bilinearly, half-pixel centres, and add a map; return rows [R, C].

    Raises:
        ValueError: The index has no border of 1, or the map that is added has another shape or type.
    """
    if x.index is not None and x.border != 1:
        raise ValueError(f"enlargement reads an index with a border of 1, this one has {x.border}")
    sides = [side * factor for side in x.sides]
    out = np.empty((x.tiles * math.prod(sides), x.channels), target.dtype)
    steps, outside = Steps.between(x.format, target), np.ascontiguousarray(x.beyond)
    added = Steps(0.0, 0.0) if more is None else Steps.between(more[1], target)
    if more is not None:
        _check(more[0], more[1], out.shape)
    call = abi.Enlargement(
        abi.samples(x, outside),
        None if more is None else address(more[0]),
        address(out),
        steps.factor,
        steps.shift + (0.0 if more is None else added.shift - target.zero),
        added.factor,
        low / target.scale + target.zero,
        math.inf,
        0 if more is None else KINDS.index(more[1].kind),
        KINDS.index(target.kind),
        factor,
        *sides,
    )
    loaded().foveal_reduced_enlarge(ctypes.byref(call))
    return out


def change(x: Array, source: Format, target: Format, scale: Floats, shift: Floats, low: float) -> Array:
    """Return max(scale * x + shift, low) of real values [R, C] as rows of another format, padded.

    Raises:
        ValueError: Rows, scale and shift have different channels, or the rows are of another type.
    """
    channels = x.shape[-1]
    _check(x, source, (len(x), channels))
    if len(scale) != channels or len(shift) != channels:
        raise ValueError(f"rows have {channels} channels, scale {len(scale)} and shift {len(shift)}")
    factor = np.zeros(padded(channels), np.float32)
    bias = np.full(padded(channels), target.zero, np.float32)
    factor[:channels] = scale * (source.scale / target.scale)
    bias[:channels] = shift / target.scale + target.zero - source.zero * factor[:channels].astype(np.float64)
    out = np.empty((len(x), len(factor)), target.dtype)
    call = abi.Change(
        address(x),
        address(factor),
        address(bias),
        None,
        None,
        address(out),
        len(x),
        low / target.scale + target.zero,
        math.inf,
        channels,
        len(factor),
        KINDS.index(source.kind),
        0,
        KINDS.index(target.kind),
        len(factor),
        0,
    )
    loaded().foveal_reduced_change(ctypes.byref(call))
    return out


def means(x: Map, start: Array, source: Array, share: Array) -> Array:
    """Return averages of rows [M, C]; the rest of a share is what lies outside."""
    out, unknown = np.empty((len(start) - 1, x.channels), x.format.dtype), np.ascontiguousarray(x.beyond)
    call = abi.Means(
        abi.samples(x, unknown), *map(address, (start, source, share, unknown, out)), len(start) - 1
    )
    loaded().foveal_reduced_means(ctypes.byref(call))
    return out


def halve(x: Map) -> Array:
    """Return dense maps of half the size [R, C]: means of 2x2 samples, of those that exist."""
    if x.index is not None:
        raise ValueError("only dense maps are halved, this one has an index")
    out = np.empty((x.tiles * -(-x.height // 2) * -(-x.width // 2), x.channels), x.format.dtype)
    call = abi.Halving(abi.samples(x, x.beyond), address(out))
    loaded().foveal_reduced_halve(ctypes.byref(call))
    return out


def _check(rows: Array, format: Format, shape: tuple[int, ...]) -> None:
    """Refuse rows that the kernels would read beyond."""
    if rows.shape != shape or rows.dtype != format.dtype:
        raise ValueError(f"rows are {rows.dtype} {list(rows.shape)}, must be {format.dtype} {list(shape)}")
