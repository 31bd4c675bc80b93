"""Random maps and convolutions in reduced precision."""

from __future__ import annotations

import math
import random

import numpy as np

from foveal.geometry.layout import Layout
from foveal.kernels.abi import index_of
from foveal.ops.reduced.spec import Array, Format, Map, ReducedConvolution, padded


def random_format(source: random.Random, kind: str) -> Format:
    """Draw a format; zero points at the ends and in the middle."""
    if kind != "u8":
        return Format(kind)  # type: ignore[arg-type]
    return Format("u8", source.choice([1.0, 0.02, 0.37]), source.choice([0, 128, source.randint(0, 255)]))


def random_rows(source: random.Random, format: Format, rows: int, channels: int) -> Array:
    """Draw rows; 8-bit ones from the whole range, its ends often."""
    numbers = np.random.default_rng(source.randint(0, 2**31))
    found = numbers.standard_normal((rows, channels)).astype(np.float32)
    if format.kind != "u8":
        return format.rows(found)
    steps = numbers.integers(0, 256, (rows, padded(channels)), np.uint8)
    return np.where(numbers.random(steps.shape) < 0.2, np.uint8(255), steps)


def map_of(
    source: random.Random, layout: Layout, side: int, border: int, channels: int, format: Format
) -> Map:
    """Draw the rows of a layout's tiles and of the averages its index asks for."""
    index = index_of(layout, side, border)
    own = random_rows(source, format, len(layout) * side * side, channels)
    means = random_rows(source, format, index.means, channels)
    full = side + 2 * border
    return Map(format, own, full, full, index.rows.numpy(), means, border=border)


def dense_map(
    source: random.Random, images: int, sides: tuple[int, int], channels: int, format: Format
) -> Map:
    """Draw dense maps."""
    return Map(format, random_rows(source, format, images * math.prod(sides), channels), *sides)


def random_convolution(
    source: random.Random, channels: int, format: Format, depthwise: bool = False
) -> ReducedConvolution:
    """Draw windows, strides, surroundings and formats of all kinds."""
    rows, columns = source.choice([(1, 1), (2, 2), (3, 3), (3, 3), (1, 3), (5, 3), (7, 7)])
    stride, dilation = source.choice([1, 1, 2]), source.choice([1, 1, 2])
    padding = (source.randint(0, dilation * (rows - 1)), source.randint(0, dilation * (columns - 1)))
    outputs = channels if depthwise else source.choice([1, 5, 16, 33, 70])
    numbers = np.random.default_rng(source.randint(0, 2**31))
    depth = rows * columns * (1 if depthwise else channels)
    weight = numbers.standard_normal((outputs, 1 if depthwise else channels, rows, columns)) / math.sqrt(
        depth
    )
    if source.random() < 0.2:
        weight = np.sign(weight)  # the largest products
    low, high = source.choice([(-math.inf, math.inf), (0.0, math.inf), (0.0, 6.0)])
    residual = random_format(source, source.choice(["u8", "bf16", "f32"])) if source.random() < 0.5 else None
    return ReducedConvolution(
        weight.astype(np.float32),
        format,
        random_format(source, source.choice(["u8", "bf16", "f32"])),
        numbers.standard_normal(outputs).astype(np.float32) if source.random() < 0.5 else None,
        stride,
        padding,
        dilation,
        depthwise,
        residual,
        numbers.standard_normal(outputs).astype(np.float32) if source.random() < 0.5 else None,
        low,
        high,
    )


def random_residual(source: random.Random, x: Map, c: ReducedConvolution) -> Array | None:
    """Draw what is added, if anything is."""
    rows = x.tiles * math.prod(c.sides(x))
    return None if c.residual is None else random_rows(source, c.residual, rows, c.outputs)


def assert_same(found: Array, expected: Array, format: Format, exact: bool = True) -> None:
    """Compare samples: bit by bit but for a step where single precision rounds a tie the other way."""
    assert found.shape == expected.shape and found.dtype == expected.dtype
    if format.kind == "u8":
        apart = np.abs(found.astype(np.int32) - expected.astype(np.int32))
        assert apart.max(initial=0) <= 1
        assert not exact or (apart != 0).mean() <= 1e-3
        return
    tolerance = (1e-6 if exact else 1e-4) if format.kind == "f32" else 2**-7
    np.testing.assert_allclose(
        format.decode(found), format.decode(expected), tolerance, 1e-6 if exact else 1e-3
    )
