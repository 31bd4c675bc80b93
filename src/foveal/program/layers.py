"""Convolutions as steps of a program."""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np
from torch import Tensor

from foveal.ops import Convolution
from foveal.program.builder import Builder, NotCompiled
from foveal.program.spec import ADD, CONVOLVE, DEPTHWISE, TILED

RATES = {"direct": 1.0, "winograd2": 1.5, "winograd4": 1.5}
"""Expected time of a multiplication by an algorithm, in that of the direct one."""
MOST_TAPS = 121


def add_convolution(
    builder: Builder, name: str, c: Convolution, given: int, residual: int | None = None
) -> int:
    """Add a convolution of map `given`, with everything around it, and return the map of its result.

    Raises:
        NotCompiled: It has groups of several channels, or another number of channels than the map.
    """
    source = builder.maps[given]
    if source.channels != c.weight.shape[1] * c.groups:
        raise NotCompiled(f"'{name}' takes {c.weight.shape[1] * c.groups} channels, given {source.channels}")
    if c.groups > 1 and not (c.depthwise and c.kernel[0] * c.kernel[1] <= MOST_TAPS and c.prologue is None):
        raise NotCompiled(f"'{name}' is a convolution of {c.groups} groups")
    out = builder.add_map(len(c.weight), source.stride * c.stride, source.kind, source.grid, source.columns)
    if c.groups > 1:
        return _add_depthwise(builder, name, c, (given, out), residual)
    fields: dict[str, float] = {}
    weight, bias, outside = _array(c.weight), _array(c.bias), None
    assert weight is not None
    if c.prologue is not None and c.prologue.linear:
        scale, shift = (x.double().numpy() for x in (c.prologue.scale, c.prologue.shift))
        moved = np.einsum("ocij,c->o", weight, shift)
        bias = moved if bias is None else bias + moved
        weight, outside = weight * scale[None, :, None, None], -shift / scale
    elif c.prologue is not None:
        fields["before_scale"] = builder.add_numbers(c.prologue.scale.numpy())
        fields["before_shift"] = builder.add_numbers(c.prologue.shift.numpy())
        fields |= {"before_low": c.prologue.low, "before_high": c.prologue.high}
    scaled = c.residual_scale is not None and not bool((c.residual_scale == 1).all())
    clamped = c.prologue is not None and not c.prologue.linear
    builder.add_step(
        name,
        CONVOLVE,
        given,
        out,
        other=-1 if residual is None else residual,
        weight=builder.add_numbers(weight),
        bias=builder.add_numbers(bias),
        outside=builder.add_numbers(outside),
        residual_scale=builder.add_numbers(_array(c.residual_scale) if scaled else None),
        rate=_rates(c, clamped, source.kind),
        **_window(c),
        **fields,
    )
    return out


def _add_depthwise(
    builder: Builder, name: str, c: Convolution, maps: tuple[int, int], residual: int | None
) -> int:
    """Filter every channel by itself; a residual is added by a step of its own."""
    given, out = maps
    window = _window(c)
    if residual is not None:
        window["low"], window["high"] = -np.inf, np.inf
    builder.add_step(
        name,
        DEPTHWISE,
        given,
        out,
        weight=builder.add_numbers(c.weight.detach().float().flatten(1).t().numpy()),
        bias=builder.add_numbers(_array(c.bias)),
        **window,
    )
    if residual is None:
        return out
    total = builder.add_map(len(c.weight), builder.maps[out].stride)
    if c.residual_scale is not None and not bool((c.residual_scale == 1).all()):
        raise NotCompiled(f"'{name}' is depthwise and scales its residual")
    builder.add_step(f"{name}.add", ADD, out, total, other=residual, low=c.low, high=c.high)
    return total


class _Window(TypedDict):
    """Fields of a step that say what a filter sees, and the limits of its result."""

    rows: int
    columns: int
    stride: int
    dilation: int
    top: int
    left: int
    low: float
    high: float


def _window(c: Convolution) -> _Window:
    (rows, columns), (top, left) = c.kernel, c.padding
    return _Window(
        rows=rows,
        columns=columns,
        stride=c.stride,
        dilation=c.dilation,
        top=top,
        left=left,
        low=c.low,
        high=c.high,
    )


def _rates(c: Convolution, clamped: bool, kind: int) -> tuple[float, float, float]:
    """Say which algorithms can compute a convolution, and how fast they are expected to be."""
    squares = c.kernel == (3, 3) and c.stride == c.dilation == 1 and c.padding == (1, 1)
    if clamped or not squares or kind != TILED:
        return RATES["direct"], 0.0, 0.0
    return RATES["direct"], RATES["winograd2"], RATES["winograd4"]


def _array(x: Tensor | None) -> Any:
    return None if x is None else x.detach().double().numpy()
