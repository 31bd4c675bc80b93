"""The tables of a program as native code reads them; `kernels/cpu/program/program.h` is their mirror."""

from __future__ import annotations

import ctypes
from functools import cache

from foveal.kernels.build import loaded

OLDEST_VERSION, VERSION = 1, 4
"""Of files that are read; what is written."""
PRECISIONS = ("f32", "bf16", "u8")
TILED, WHOLE, BINS = range(3)
(
    CONVOLVE,
    DEPTHWISE,
    MAX_POOL,
    ENLARGE,
    ADD,
    AFFINE,
    CONCAT,
    COMPOSE,
    GRID_POOL,
    GRID_SPREAD,
    CUT,
    REPEAT,
    SPREAD,
    APPLY,
    MULTIPLY,
    OFFSET,
    LAYER_NORM,
    GROUP_NORM,
    MEAN,
    RESAMPLE,
    SLICE,
) = range(21)
STEP_NAMES = (
    *("convolve", "depthwise", "max_pool", "enlarge", "add", "affine", "concat", "compose"),
    *("grid_pool", "grid_spread", "cut", "repeat", "spread"),
    *("apply", "multiply", "offset", "layer_norm", "group_norm", "mean", "resample", "slice"),
)
FUNCTIONS = (
    *("", "sigmoid", "silu", "hardsigmoid", "hardswish", "gelu", "gelu_tanh", "tanh", "leaky_relu"),
    "prelu",
)
"""Of the step `apply`, by number."""
UNCOUNTED = 1
"""Of the steps `convolve` and `depthwise`: weights are shares of a mean, or an order, and do not count."""
NEAREST, ALIGN_CORNERS, BY_FACTOR = 1, 2, 4
"""How the step `resample` places samples; `grid_spread` knows `ALIGN_CORNERS`."""
SCORES = ("entropy", "margin", "weighted_entropy", "regional_entropy")
NUMBER_FIELDS = ("weight", "bias", "before_scale", "before_shift", "residual_scale", "outside")
"""Of a step: where its numbers begin; -1 for none."""
MOST_LEVELS = 8
MOST_TILE = 4096
MORE_TIMES = 8
"""Entries of a profile after those of the steps: decision, composition, labels, ..."""

_Address = ctypes.c_void_p


class Head(ctypes.Structure):
    """How many maps and steps there are, which maps are the image and the logits, and what images must be."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("version", "maps", "steps", "input", "output", "classes")),
        *((name, ctypes.c_int32) for name in ("coarsest_stride", "colours", "multiple")),
    ]


MULTIPLE_SINCE, HEAD_BEFORE = 4, 32
"""Version of files whose head says what sides must be multiples of; bytes of a head in older ones."""


class MapSpec(ctypes.Structure):
    """A numbered map."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("kind", "channels", "stride", "precision", "grid")),
        ("scale", ctypes.c_float),
        *((name, ctypes.c_int32) for name in ("zero", "columns", "up", "down", "more", "least")),
    ]


SIDES_SINCE, MAP_BEFORE = 3, 32
"""Version of files whose maps say what sides they have; bytes of a map in older ones."""


class StepSpec(ctypes.Structure):
    """A step: what it does, the maps it reads and writes, and where its numbers are; -1 for none."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("kind", "input", "other", "out")),
        *((name, ctypes.c_int32) for name in ("rows", "columns", "stride", "dilation", "top", "left")),
        *((name, ctypes.c_int32) for name in ("factor", "at")),
        *((name, ctypes.c_float) for name in ("before_low", "before_high", "low", "high")),
        ("rate", ctypes.c_float * 3),
        ("function", ctypes.c_int32),
        *((name, ctypes.c_int64) for name in ("weight", "bias", "before_scale", "before_shift")),
        *((name, ctypes.c_int64) for name in ("residual_scale", "outside")),
    ]


class Request(ctypes.Structure):
    """What a run is asked, and where its answer goes."""

    _fields_ = [
        ("image", _Address),
        ("stride", ctypes.c_int64 * 4),
        *((name, ctypes.c_int32) for name in ("bytes", "images", "height", "width", "tile", "method")),
        *((name, ctypes.c_int32) for name in ("threads", "coarse_level", "max_level", "score", "shared")),
        *((name, ctypes.c_int32) for name in ("has_threshold", "gains", "direct", "mask_border")),
        *((name, ctypes.c_int32) for name in ("full_height", "full_width")),
        *((name, ctypes.c_double) for name in ("budget", "threshold", "blend", "isolated")),
        ("level_gain", ctypes.c_double * MOST_LEVELS),
        *((name, _Address) for name in ("plan", "mask", "labels", "confidence", "logits", "levels")),
        *((name, _Address) for name in ("work", "step_ms", "range", "histogram")),
        ("macs", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("passes", "bins", "first_step", "last_step")),
        *((name, _Address) for name in ("given", "taken")),
        ("error", ctypes.c_char * 256),
    ]


class Reuse(ctypes.Structure):
    """What a frame of a stream is asked besides, and what is said of it."""

    _fields_ = [
        *((name, _Address) for name in ("first", "scenes")),
        *((name, ctypes.c_double) for name in ("hysteresis", "noise", "clear", "unseen", "stale", "overdue")),
        *((name, ctypes.c_int32) for name in ("max_age", "moved")),
        ("relabelled", ctypes.c_int64),
    ]


class StreamParts(ctypes.Structure):
    """Where the content of a stream is copied to, or comes from."""

    _fields_ = [
        ("tiles", ctypes.c_int64),
        *((name, _Address) for name in ("image", "level", "row", "column", "owner")),
        *((name, _Address) for name in ("age", "picture", "logits", "maps")),
    ]


@cache
def native() -> ctypes.CDLL:
    """Return the kernels, with the signatures of the program.

    Raises:
        RuntimeError: The kernels are not available, or of another version.
    """
    kernels = loaded()
    kernels.foveal_program_size.restype = ctypes.c_int64
    kinds = Head, MapSpec, StepSpec, Request, Reuse, StreamParts
    if [kernels.foveal_program_size(k) for k in range(len(kinds))] != [ctypes.sizeof(k) for k in kinds]:
        raise RuntimeError("the C kernels are of another version than this package; delete FOVEAL_CACHE")
    kernels.foveal_program_make.restype = _Address
    kernels.foveal_program_make.argtypes = [*[_Address] * 4, ctypes.c_int64, _Address, ctypes.c_int64]
    kernels.foveal_program_run.restype = ctypes.c_int32
    kernels.foveal_program_run.argtypes = [_Address, _Address]
    kernels.foveal_program_reached.argtypes, kernels.foveal_program_reached.restype = [_Address] * 2, None
    for free in (kernels.foveal_program_release, kernels.foveal_program_free, kernels.foveal_stream_free):
        free.argtypes, free.restype = [_Address], None
    _sign_streams(kernels)
    return kernels


def _sign_streams(kernels: ctypes.CDLL) -> None:
    """Give the functions of streams their signatures."""
    kernels.foveal_stream_make.restype = kernels.foveal_stream_copy.restype = _Address
    kernels.foveal_stream_make.argtypes = [_Address, *[ctypes.c_int32] * 4, _Address, ctypes.c_int64]
    kernels.foveal_stream_copy.argtypes = kernels.foveal_stream_bytes.argtypes = [_Address]
    kernels.foveal_stream_bytes.restype = ctypes.c_int64
    kernels.foveal_stream_run.argtypes = [_Address] * 3
    for copy in (kernels.foveal_stream_copy_out, kernels.foveal_stream_copy_in):
        copy.argtypes, copy.restype = [_Address, _Address], ctypes.c_int32
