"""Whole-slide images through tiffslide (`pip install foveal[slide]`): SVS, NDPI, SCN and their like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from foveal.data.decode import ImageError
from foveal.data.raster import Raster
from foveal.inference.large.source import Source, Window, missing, stamp_of

NEAR = 0.02
"""A factor between levels of a slide may differ by this share from a power of two: sides are rounded."""


class SlideSource(Source):
    """A slide in red, green and blue.

    Args:
        path: The file.

    Raises:
        ImageError: It cannot be opened.
        ValueError: tiffslide is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            import tiffslide
        except ImportError:
            raise missing("tiffslide", "slide", "a slide") from None
        self.path, self.name, self.bands, self.dtype = path, str(path), 3, np.dtype(np.uint8)
        try:
            self._slide: Any = tiffslide.TiffSlide(path)
            width, height = self._slide.dimensions
            sizes = [(int(h), int(w)) for w, h in self._slide.level_dimensions]
        except Exception as error:  # of tifffile, fsspec and tiffslide
            raise self._damaged(error) from None
        self.size = int(height), int(width)
        self._numbers: dict[int, int] = {0: 0}
        for number, sides in enumerate(sizes):
            level = round(np.log2(self.size[1] / max(1, sides[1])))
            exact = self.size_at(level)
            # Levels of scanners leave out a rest at the edge: such a level lacks its last samples.
            if level > 0 and all(0 <= a - b <= max(1, NEAR * a) for a, b in zip(exact, sides, strict=True)):
                self._numbers[level] = number
        self._sizes = {level: sizes[number] for level, number in self._numbers.items()}
        self.levels = tuple(sorted(self._numbers))

    def read(self, window: Window, level: int = 0) -> Raster:
        """Read a window of a level; what a scanner's level lacks at its edge repeats the last sample."""
        height, width = self._sizes[level]
        top, left = min(window.top, height - 1), min(window.left, width - 1)
        inside = min(window.bottom, height) - top, min(window.right, width) - left
        inside = max(1, inside[0]), max(1, inside[1])
        try:
            values = np.asarray(
                self._slide.read_region(
                    (left << level, top << level),
                    self._numbers[level],
                    (inside[1], inside[0]),
                    as_array=True,
                )
            )
        except Exception as error:
            raise self._damaged(error) from None
        rest = ((0, window.height - inside[0]), (0, window.width - inside[1]), (0, 0))
        return Raster(self.path, np.pad(values[:, :, :3], rest, mode="edge"))

    @property
    def identity(self) -> tuple[object, ...]:
        """The file's stamp."""
        return (*super().identity, *stamp_of(self.path))

    def _damaged(self, error: Exception) -> ImageError:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return ImageError(f"{self.path} is no slide that tiffslide reads, or damaged ({reason}).")
