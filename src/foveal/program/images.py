"""Images on their way into native code."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from foveal.program.spec import Request
from foveal.storage.said import warn_once

Array = np.ndarray[Any, Any]
BRIGHT, SAMPLED = 10.0, 16
"""Number beyond which images are in 0..255, normalised or not; lines and columns looked at for it."""
BEYOND = 0.05
"""Images that were resampled may reach so far beyond 0..1."""


def as_array(image: Any, name: str = "image") -> Array:
    """Return images, or other numbers of a given name, as an array that shares their memory.

    Raises:
        ValueError: They are no array, nor a dense tensor on the CPU.
    """
    try:
        array = np.asarray(image)
    except Exception as error:  # whatever a tensor without numbers, or on another device, makes of it
        reason = " ".join(str(error).split())[:100]
        raise ValueError(
            f"{name} is a {type(image).__name__} that NumPy cannot read ({reason}); give an array, or a "
            "dense tensor on the CPU"
        ) from None
    if array.dtype.kind not in "uifb":
        raise ValueError(f"{name} is a {type(image).__name__}; give an array or a tensor on the CPU")
    return array


def take_image(request: Request, image: Array, channels: int) -> Array:
    """Describe images to native code, as they lie in memory.

    Args:
        request: What is told where they are.
        image: float32 [N, C, H, W] in 0..1, or bytes [N, H, W, C].
        channels: C of the program.

    Returns:
        The images, which must live as long as the request.

    Raises:
        ValueError: They have another shape or type, are empty, or hold numbers of 0..255 as floats. Numbers
            beyond 0..1 are warned of once.
    """
    floats = image.ndim == 4 and image.shape[1] == channels and image.dtype == np.float32
    if not floats and not (image.ndim == 4 and image.shape[3] == channels and image.dtype == np.uint8):
        raise ValueError(
            f"images are {image.dtype} {list(image.shape)}; give float32 [N, {channels}, H, W] in 0..1, or "
            f"bytes [N, H, W, {channels}]"
        )
    if not image.size:
        raise ValueError(f"images are {list(image.shape)}, which is empty; give some")
    planar = image if floats else image.transpose(0, 3, 1, 2)
    if floats:
        _check_range(planar)
    request.image = image.ctypes.data
    request.bytes = int(not floats)
    request.images, _, request.height, request.width = planar.shape
    request.stride[:] = [step // image.itemsize for step in planar.strides]
    return image


def _check_range(image: Array) -> None:
    """Look at some numbers of images, from all parts; native code looks for those that are none."""
    down, across = (max(1, side // SAMPLED) for side in image.shape[2:])
    some = image[:, :, ::down, ::across]
    least, most = float(some.min()), float(some.max())
    if not (math.isfinite(least) and math.isfinite(most)):
        return
    if max(-least, most) > BRIGHT:
        raise ValueError(
            f"images hold numbers from {least:.4g} to {most:.4g}; give numbers in 0..1 (divide 0..255 by "
            "255), or bytes"
        )
    warn_of_range(least, most)


def warn_of_range(least: float, most: float) -> None:
    """Warn, once in a process, of numbers that are none of an image in 0..1."""
    if least < -BEYOND or most > 1 + BEYOND:
        warn_once(
            "range of images",
            f"images hold numbers from {least:.3g} to {most:.3g}; networks of Foveal take 0..1 and normalise "
            "by themselves, so answers are likely wrong",
        )
