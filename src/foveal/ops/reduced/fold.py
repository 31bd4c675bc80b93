"""Weights and tables as kernels read them: quantised, folded into units of the output, packed.

Source: Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only
inference", CVPR 2018 (zero points and scales taken out of the sum).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foveal.ops.reduced.spec import Array, Floats, ReducedConvolution, from_bf16, padded, to_bf16

BLOCK = 32
"""Outputs that are packed side by side."""

GROUP = {"u8": 4, "bf16": 2}
"""Samples that are multiplied together: a word of 4 bytes."""


def quantise_weight(weight: Array) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Quantise weights [O, ...] to -127..127 with one scale per output.

    Returns:
        The quantised weights, and the size of a step per output [O]; 1 where all weights are 0.
    """
    flat = np.abs(weight.reshape(len(weight), -1).astype(np.float64))
    scale = flat.max(axis=1, initial=0.0) / 127
    scale[scale == 0] = 1.0
    steps = np.rint(weight / scale.reshape(-1, *[1] * (weight.ndim - 1)))
    return steps.astype(np.int8), scale


def pack_weight(weight: Array, group: int) -> Array:
    """Pack weights [O, C, rows, columns] into words of `group` channels, zeros added.

    Returns:
        [blocks, rows * columns * padded C / group, BLOCK, group].
    """
    outputs, channels, rows, columns = weight.shape
    room = (0, -outputs % BLOCK), (0, padded(channels) - channels), (0, 0), (0, 0)
    lines = np.pad(weight, room).transpose(0, 2, 3, 1).reshape(-1, BLOCK, rows * columns * padded(channels))
    words = lines.reshape(len(lines), BLOCK, -1, group)
    return np.ascontiguousarray(words.transpose(0, 2, 1, 3))


@dataclass(frozen=True, eq=False)
class Folded:
    """A convolution in units of its output; tables have room for all outputs of the blocks.

    Attributes:
        steps: Quantised weights, or those rounded to bfloat16, [O, C, rows, columns].
        weight: Packed weights, int8 or bfloat16 bits; [rows * columns, padded C] if depthwise.
        start: Where sums of 8-bit products start, int32; zeros for bfloat16.
        scale: Factor of a sum.
        bias: Added to it; the zero points of output and residual are in it.
        residual_scale: Factor of the residual.
        low: Smallest output.
        high: Largest output.
    """

    steps: Array
    weight: Array
    start: NDArray[np.int32]
    scale: Floats
    bias: Floats
    residual_scale: Floats
    low: float
    high: float


def fold(c: ReducedConvolution) -> Folded:
    """Quantise, fold and pack a convolution."""
    target, source = c.target, c.source
    bits: Array
    if source.kind == "u8":
        bits, step_size = quantise_weight(c.weight)
        start = -source.zero * bits.reshape(c.outputs, -1).sum(axis=1, dtype=np.int64)
        steps: Array = bits
    else:
        bits = to_bf16(c.weight)
        steps, step_size = from_bf16(bits), np.ones(c.outputs)
        start = np.zeros(c.outputs, np.int64)
    bias = np.zeros(c.outputs) if c.bias is None else c.bias.astype(np.float64)
    bias = bias / target.scale + target.zero
    factor = np.zeros(c.outputs)
    if c.residual is not None:
        factor = np.ones(c.outputs) if c.residual_scale is None else c.residual_scale.astype(np.float64)
        factor = factor * (c.residual.scale / target.scale)
        bias = bias - factor * c.residual.zero
    return Folded(
        steps,
        _depthwise(bits) if c.depthwise else pack_weight(bits, GROUP[source.kind]),
        _table(start).astype(np.int32),
        _table(step_size * (source.scale / target.scale)).astype(np.float32),
        _table(bias, target.zero).astype(np.float32),
        _table(factor).astype(np.float32),
        c.low / target.scale + target.zero,
        c.high / target.scale + target.zero,
    )


def _depthwise(bits: Array) -> Array:
    """Lay out [C, 1, rows, columns] as [rows * columns, padded C]."""
    lines = bits.reshape(len(bits), -1).T
    return np.ascontiguousarray(np.pad(lines, ((0, 0), (0, padded(len(bits)) - len(bits)))))


def _table(values: Array, fill: float = 0) -> Array:
    """Give a table [O] room for all outputs of the blocks."""
    return np.pad(values, (0, -len(values) % BLOCK), constant_values=fill)
