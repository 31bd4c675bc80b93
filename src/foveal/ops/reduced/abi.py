"""Structures that kernels in reduced precision read, as in reduced.h."""

from __future__ import annotations

import ctypes

from foveal.ops.reduced.spec import KINDS, Array, Map

Address = ctypes.c_void_p

MOST_TAPS = 121
"""Samples in a window of a maximum or a depthwise convolution that the kernels have room for."""


def _fields(kind: type, *names: str) -> list[tuple[str, type]]:
    return [(name, kind) for name in names]


class Samples(ctypes.Structure):
    """A map, `Samples` in reduced.h."""

    _fields_ = [
        *_fields(Address, "own", "means", "outside", "index"),
        *_fields(ctypes.c_int64, "own_rows", "tiles"),
        *_fields(ctypes.c_int32, "height", "width", "channels", "type", "top", "left"),
    ]


class Convolution(ctypes.Structure):
    """A convolution, `ReducedConvolution` in reduced.h."""

    _fields_ = [
        ("in", Samples),
        *_fields(Address, "weight", "start", "scale", "bias", "residual_scale"),
        *_fields(Address, "residual", "out"),
        *_fields(ctypes.c_float, "low", "high"),
        *_fields(ctypes.c_int32, "residual_type", "out_type"),
        *_fields(ctypes.c_int32, "rows", "columns", "stride", "dilation"),
        *_fields(ctypes.c_int32, "out_height", "out_width", "outputs", "path"),
        ("scratch", Address),
        ("scratch_bytes", ctypes.c_int64),
        ("unreal", Address),
    ]


def address(x: Array | None) -> int | None:
    """Address of an array's first element; the array must be contiguous."""
    if x is None:
        return None
    if not x.flags.c_contiguous:
        raise ValueError(f"kernels read contiguous arrays, this one {list(x.shape)} has strides {x.strides}")
    return x.ctypes.data


def samples(x: Map, outside: Array, padding: tuple[int, int] = (0, 0)) -> Samples:
    """Describe a map whose first window starts `padding` before the tile; `outside` must live on."""
    return Samples(
        address(x.own),
        address(x.means),
        address(outside),
        address(x.index),
        len(x.own),
        x.tiles,
        x.height,
        x.width,
        x.channels,
        KINDS.index(x.format.kind),
        x.border - padding[0],
        x.border - padding[1],
    )


class Pool(ctypes.Structure):
    """`ReducedPool` in reduced.h."""

    _fields_ = [
        ("in", Samples),
        ("out", Address),
        *_fields(ctypes.c_int32, "rows", "columns", "stride", "dilation", "out_height", "out_width"),
    ]


class Enlargement(ctypes.Structure):
    """`ReducedEnlargement` in reduced.h."""

    _fields_ = [
        ("in", Samples),
        *_fields(Address, "more", "out"),
        *_fields(ctypes.c_float, "scale", "shift", "more_scale", "low", "high"),
        *_fields(ctypes.c_int32, "more_type", "out_type", "factor", "out_height", "out_width"),
        ("unreal", Address),
    ]


class Change(ctypes.Structure):
    """`ReducedChange` in reduced.h."""

    _fields_ = [
        *_fields(Address, "in", "scale", "shift", "more", "more_scale", "out"),
        ("rows", ctypes.c_int64),
        *_fields(ctypes.c_float, "low", "high"),
        *_fields(
            ctypes.c_int32, "in_channels", "channels", "in_type", "more_type", "out_type", "pitch", "at"
        ),
        ("unreal", Address),
    ]


class Means(ctypes.Structure):
    """`ReducedMeans` in reduced.h."""

    _fields_ = [
        ("in", Samples),
        *_fields(Address, "start", "source", "share", "unknown", "out"),
        ("means", ctypes.c_int64),
    ]


class Halving(ctypes.Structure):
    """`ReducedHalving` in reduced.h."""

    _fields_ = [("in", Samples), ("out", Address)]
