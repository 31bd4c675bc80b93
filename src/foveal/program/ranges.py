"""Which values the maps of a program hold, and the scales that lose least of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foveal.program.run import Program

Array = np.ndarray[Any, Any]
BINS = 2048
STEPS = 255
"""Steps of an 8-bit number."""
SHARES = np.linspace(0.2, 1.0, 65)
"""Shares of the whole range that are tried."""


@dataclass(frozen=True, eq=False)
class Ranges:
    """How to write every map in 8 bits: q stands for scale * (q - zero).

    Attributes:
        scale: [maps].
        zero: [maps], 0 to 255.
        loss: Mean squared error as a share of the mean square [maps].
    """

    scale: Array
    zero: Array
    loss: Array


def observe(program: Program, images: Sequence[Any]) -> Ranges:
    """Run a program in single precision on images, and on these at half their size, and choose scales.

    Args:
        program: In single precision.
        images: Batches [N, C, H, W], float32 in 0..1.
    """
    arrays = [np.asarray(image, dtype=np.float32) for image in images]
    arrays += [_halved(image, program.tables.head.multiple or 1) for image in arrays]
    maps = len(program.tables.maps)
    span = np.tile(np.array([0.0, 0.0], np.float32), (maps, 1))
    for image in arrays:
        program.observe(image, span)
    counts = np.zeros((maps, BINS), np.float32)
    for image in arrays:
        program.observe(image, span, counts)
    found = [_best(low, high, count) for (low, high), count in zip(span.tolist(), counts, strict=True)]
    scale, zero, loss = (np.array(column) for column in zip(*found, strict=True))
    return Ranges(scale, zero, loss)


def _halved(image: Array, multiple: int) -> Array:
    """Average 2x2 pixels; what makes no whole multiples for the network is left out at the end."""
    height, width = (side // (2 * multiple) * 2 * multiple for side in image.shape[2:])
    if not height or not width:
        return image
    x = image[:, :, :height, :width]
    return np.ascontiguousarray(
        (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4
    )


def _best(low: float, high: float, counts: Array) -> tuple[float, int, float]:
    """Choose scale and zero point of one map by the squared error of what is cut off and of rounding."""
    total = float(counts.sum())
    if high <= low or total == 0:
        return 1.0, 0, 0.0
    centres = low + (np.arange(BINS) + 0.5) * (high - low) / BINS
    best = (np.inf, 1.0, 0)
    for share in SHARES:
        scale = share * (high - low) / STEPS
        zero = int(np.clip(np.round(-share * low / scale), 0, STEPS))
        first, last = -zero * scale, (STEPS - zero) * scale
        cut = np.square(centres - np.clip(centres, first, last))
        inside = (centres >= first) & (centres <= last)
        error = float((counts * (cut + inside * scale**2 / 12)).sum())
        best = min(best, (error, scale, zero))
    power = float((counts * np.square(centres)).sum())
    return best[1], best[2], best[0] / max(power, 1e-30)
