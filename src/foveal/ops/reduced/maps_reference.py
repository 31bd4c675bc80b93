"""What the kernels for maps in reduced precision compute that need no matrix product, in NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foveal.ops.reduced.reference import bordered, store, windows
from foveal.ops.reduced.spec import Array, Floats, Format, Map, ReducedConvolution, Steps, from_bf16


def numbers(rows: Array, format: Format) -> NDArray[np.float64]:
    """Return samples as numbers; 8-bit ones in steps."""
    return (from_bf16(rows) if format.kind == "bf16" else rows).astype(np.float64)


def max_pool(x: Map, c: ReducedConvolution) -> Array:
    """Return the largest sample of every window [R, C]; the geometry is a convolution's."""
    seen = windows(x, c)
    seen = seen.reshape(-1, seen.shape[3] * seen.shape[4], x.channels)
    return store(numbers(seen, x.format).max(axis=1), x.format)


def enlarge(
    x: Map, factor: int, target: Format, more: tuple[Array, Format] | None = None, low: float = -np.inf
) -> Array:
    """Enlarge bilinearly, half-pixel centres, and add a map; return rows [R, C]."""
    border = x.border if x.index is not None else 0
    full = numbers(bordered(x), x.format)
    places = []
    for side in x.sides:
        at = (np.arange(side * factor) + 0.5) / factor - 0.5
        first = np.floor(at).astype(np.int64)
        beside = [np.clip(first + k, -border, side - 1 + border) + border for k in (0, 1)]
        places.append((beside, at - first))
    (down, below), (across, right) = places
    upper, lower = full[:, down[0]], full[:, down[1]]
    lines = upper * (1 - below)[:, None, None] + lower * below[:, None, None]
    wide = lines[:, :, across[0]] * (1 - right)[:, None] + lines[:, :, across[1]] * right[:, None]
    steps = Steps.between(x.format, target)
    values = wide.reshape(-1, x.channels) * steps.factor + steps.shift
    if more is not None:
        rows, format = more
        values = values + format.scale / target.scale * (numbers(rows, format) - format.zero)
    return store(np.maximum(values, low / target.scale + target.zero), target)


def change(x: Array, source: Format, target: Format, scale: Floats, shift: Floats, low: float) -> Array:
    """Return max(scale * x + shift, low) of real values as rows of another format."""
    real = source.scale * (numbers(x, source) - source.zero) * scale + shift
    return store(np.maximum(real, low) / target.scale + target.zero, target)


def means(x: Map, start: Array, source: Array, share: Array) -> Array:
    """Return averages of rows [M, C]; the rest of a share is what lies outside."""
    rows, beyond = numbers(x.own, x.format), numbers(x.beyond, x.format)
    found = np.empty((len(start) - 1, x.channels))
    for m in range(len(found)):
        parts = slice(start[m], start[m + 1])
        weights = share[parts].astype(np.float64)
        found[m] = weights @ rows[source[parts]] + (1 - weights.sum()) * beyond
    return store(found, x.format)


def halve(x: Map) -> Array:
    """Return dense maps of half the size [R, C]: means of 2x2 samples, of those that exist."""
    full = numbers(bordered(x), x.format)
    full = np.pad(full, ((0, 0), (0, x.height % 2), (0, x.width % 2), (0, 0)), mode="edge")
    found = (full[:, ::2, ::2] + full[:, 1::2, ::2] + full[:, ::2, 1::2] + full[:, 1::2, 1::2]) / 4
    return store(found.reshape(-1, x.channels), x.format)
