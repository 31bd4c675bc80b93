"""Motion of a whole picture by whole pixels, from one frame to another: a camera that turns, or drifts.

Source: Kuglin and Hines, "The phase correlation image alignment method", 1975.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Grey = np.ndarray[Any, np.dtype[np.float32]]
Shift = tuple[int, int]
"""Rows and columns by which a picture has moved [px]: downwards and to the right."""

LARGEST = 512
"""Longest side of the pictures that are compared [px]; larger ones are picked from."""
PEAKS = 4
"""Shifts that are tried, by the height of their peak."""


def global_shift(before: Grey, after: Grey) -> Shift:
    """Find by how much a picture has moved; (0, 0) where no shift makes the frames more alike.

    Peaks of the phase correlation are tried on the pictures themselves, so that a wrong one is never taken:
    the mean absolute difference of what two frames have in common must be the least.

    Args:
        before: Grey picture [H, W].
        after: The next one, of the same size.
    """
    step = -(-max(before.shape) // LARGEST)
    small = before[::step, ::step], after[::step, ::step]
    height, width = small[0].shape
    window = np.outer(*(np.hanning(side + 2)[1:-1] for side in (height, width))).astype(np.float32)
    spectra = [np.fft.rfft2((x - x.mean()) * window) for x in small]
    cross = spectra[1] * spectra[0].conj()
    peaks = np.fft.irfft2(cross / np.maximum(np.abs(cross), 1e-9), s=(height, width))
    best, least = (0, 0), _difference(small[0], small[1], (0, 0))
    for place in np.argpartition(peaks, -PEAKS, axis=None)[-PEAKS:] if peaks.size > PEAKS else ():
        row, column = divmod(int(place), width)
        shift = row - height * (row > height // 2), column - width * (column > width // 2)
        for near in _around(shift) if step > 1 else (shift,):
            apart = _difference(small[0], small[1], near)
            if apart < least:
                best, least = near, apart
    return best[0] * step, best[1] * step


def shifted(values: np.ndarray[Any, Any], shift: Shift) -> np.ndarray[Any, Any]:
    """Move maps [..., H, W]; what comes in at an edge repeats it."""
    rows, columns = (
        np.clip(np.arange(side) - by, 0, side - 1) for side, by in zip(values.shape[-2:], shift, strict=True)
    )
    return values[..., rows[:, None], columns]


def _around(shift: Shift) -> list[Shift]:
    """Return a shift and its eight neighbours: between picked pixels a peak is blunt."""
    return [(shift[0] + row, shift[1] + column) for row in (0, -1, 1) for column in (0, -1, 1)]


def _difference(before: Grey, after: Grey, shift: Shift) -> float:
    """Return the mean absolute difference of what two frames have in common; infinite if that is nothing."""
    (top, bottom), (left, right) = (
        (max(0, by), side + min(0, by)) for side, by in zip(before.shape, shift, strict=True)
    )
    if bottom <= top or right <= left:
        return math.inf
    moved = before[top - shift[0] : bottom - shift[0], left - shift[1] : right - shift[1]]
    return float(np.abs(moved - after[top:bottom, left:right]).mean())
