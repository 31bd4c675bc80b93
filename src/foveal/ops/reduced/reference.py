"""What the kernels in reduced precision compute, step by step in NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foveal.ops.reduced.fold import Folded, fold
from foveal.ops.reduced.spec import Array, Format, Map, ReducedConvolution, from_bf16, padded, to_bf16


def bordered(x: Map) -> Array:
    """Return the places of all tiles with their border [tiles, height, width, C]."""
    if x.index is None:
        return x.own.reshape(x.tiles, x.height, x.width, x.channels)
    means = x.own[:0] if x.means is None else x.means
    rows = np.concatenate((x.own, means, x.beyond[None]))
    return rows[x.index]


def windows(x: Map, c: ReducedConvolution) -> Array:
    """Return all windows [tiles, out height, out width, rows, columns, C]."""
    (rows, columns), (top, left) = c.kernel, c.padding
    full = bordered(x)
    if x.index is None:
        room = ((0, 0), (top, c.dilation * rows + c.stride), (left, c.dilation * columns + c.stride), (0, 0))
        mask = np.pad(np.ones(full.shape[:3] + (1,), bool), room)
        full, first = np.where(mask, np.pad(full, room), x.beyond), (0, 0)
    else:
        first = x.border - top, x.border - left
    heights, widths = (
        start + c.stride * np.arange(out)[:, None] + c.dilation * np.arange(taps)
        for start, out, taps in zip(first, c.sides(x), c.kernel, strict=True)
    )
    return full[:, heights[:, None, :, None], widths[None, :, None, :]]


def sums(x: Map, c: ReducedConvolution, folded: Folded) -> NDArray[np.float64]:
    """Return the sums of products [pixels, O], exact for 8-bit maps."""
    seen = windows(x, c)
    numbers = seen if x.format.kind == "u8" else from_bf16(seen)
    numbers = numbers.reshape(-1, *c.kernel, x.channels).astype(np.float64)
    weight = folded.steps.astype(np.float64)
    start = folded.start[: c.outputs].astype(np.float64)
    if c.depthwise:
        return start + np.einsum("pijc,cij->pc", numbers[..., : c.outputs], weight[:, 0])
    lines = weight.transpose(2, 3, 1, 0)
    numbers = numbers[..., : lines.shape[2]]
    return start + numbers.reshape(len(numbers), -1) @ lines.reshape(-1, c.outputs)


def store(values: Array, target: Format) -> Array:
    """Return values in units of the output as samples [R, padded O]."""
    values = values.astype(np.float32)
    if target.kind == "u8":
        return np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return to_bf16(values) if target.kind == "bf16" else values


def convolve(x: Map, c: ReducedConvolution, residual: Array | None = None) -> Array:
    """Convolve; return the rows of the output [tiles * out height * out width, padded O].

    Every step rounds as the kernels do: sums become single precision, then one rounding per table.
    """
    folded = fold(c)
    outputs = padded(c.outputs)
    found = np.zeros((x.tiles * c.sides(x)[0] * c.sides(x)[1], outputs))
    found[:, : c.outputs] = sums(x, c, folded)
    values = found.astype(np.float32).astype(np.float64)
    values = (values * folded.scale[:outputs] + folded.bias[:outputs]).astype(np.float32)
    if residual is not None and c.residual is not None:
        numbers = from_bf16(residual) if c.residual.kind == "bf16" else residual
        more = numbers.astype(np.float64) * folded.residual_scale[:outputs]
        values = (more + values).astype(np.float32)
    return store(np.clip(values, np.float32(folded.low), np.float32(folded.high)), c.target)
