"""Frames of a video, and their clock."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

Pixels = np.ndarray[Any, Any]
NAMED_RATE = Fraction(25)
"""Frames a second of images whose rate nobody names."""


@dataclass(frozen=True)
class Clock:
    """When frames are shown.

    Attributes:
        unit: Seconds that a time stamp counts in.
        rate: Usual frames a second; single frames may come earlier or later.
    """

    unit: Fraction
    rate: Fraction


@dataclass(frozen=True)
class VideoFrame:
    """One frame, upright.

    Attributes:
        pixels: RGB [H, W, 3], uint8.
        stamp: When it is shown, in units of the clock.
        index: Its number, from 0; those that were dropped count.
        dropped: Frames right before it that were dropped.
    """

    pixels: Pixels
    stamp: int
    index: int
    dropped: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """Height and width [px]."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def image(self) -> Tensor:
        """The frame as networks take it [1, 3, H, W], float32 in 0..1, channels last."""
        planes = torch.from_numpy(self.pixels).permute(2, 0, 1)[None]
        return planes.to(torch.float32, memory_format=torch.channels_last).div(255)


def import_av() -> ModuleType:
    """Import PyAV, which reads and writes video files.

    Raises:
        ValueError: It is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ValueError(
            f"videos are read and written by PyAV, which cannot be imported ({error}); install it with "
            "pip install foveal[video], or give a folder of images"
        ) from None
    module: ModuleType = av
    return module
