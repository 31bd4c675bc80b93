"""Images of any size, read by windows at several resolutions.

A *level* halves the sides: level k has ceil(side / 2^k) samples a side. What a file brings along at a level
(an overview) is read from there; any other level is the mean of the next finer one, strip by strip, as
tiles of that level are made. Overviews of another grid than this one are not used.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.data.decode import ImageError, check_file
from foveal.data.raster import ImageFormat, Raster, read_raster
from foveal.ops import halve
from foveal.storage.given import need_path

if TYPE_CHECKING:
    from foveal.inference.large.places import Georeference

Array = np.ndarray[Any, Any]
STRIP = 1 << 24
"""Pixels that are read at once where a level has to be made."""
MOST_BANDS = 64
"""An array whose last side is longer has no bands."""
ARRAYS, FOLDERS = (".npy",), (".zarr", ".ngff")
SLIDES = ".svs", ".ndpi", ".scn", ".bif"
TIFFS = ".tif", ".tiff", ".vrt", ".jp2"


class Window(NamedTuple):
    """A rectangle of an image, in samples of some level."""

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """Row after the last."""
        return self.top + self.height

    @property
    def right(self) -> int:
        """Column after the last."""
        return self.left + self.width


class Source(ABC):
    """An image that is read by windows.

    Attributes:
        name: What the user calls it, for messages.
        size: Height and width at level 0 [px].
        bands: Bands of a pixel, transparency not counted.
        dtype: Type of the values.
        levels: Levels that can be read without making them, level 0 first.
        nodata: Value that means nothing, if one is declared.
        place: Where on the ground the pixels lie; None if the file does not say.
    """

    name: str
    size: tuple[int, int]
    bands: int
    dtype: np.dtype[Any]
    levels: tuple[int, ...] = (0,)
    nodata: float | None = None
    place: Georeference | None = None

    @abstractmethod
    def read(self, window: Window, level: int = 0) -> Raster:
        """Read a window of one of the `levels`, all of it within the image.

        Raises:
            ImageError: The file is damaged or cut short there.
        """

    @property
    def identity(self) -> tuple[object, ...]:
        """What tells this source from another one, and from itself after a change."""
        return (self.name, self.size, self.bands, str(self.dtype))

    def size_at(self, level: int) -> tuple[int, int]:
        """Height and width at a level [samples]."""
        return -(-self.size[0] >> level), -(-self.size[1] >> level)

    def image(self, window: Window, level: int, wanted: ImageFormat) -> Tensor:
        """Return a window of any level as an image [C, h, w] in 0..1.

        Raises:
            ImageError: As of `read`; or the values need a range, or the bands do not fit.
        """
        found = self._nearest(level)
        if found == level:
            return self.read(window, level).image(wanted)
        strips = [self._reduced(part, found, level, wanted) for part in self._strips(window, level - found)]
        return torch.cat(strips, 1)

    def wanted(self, window: Window, level: int) -> Tensor:
        """Return which samples of a window of any level mean something [h, w], bool: where any pixel does."""
        return self._where_any(window, level, Raster.wanted)

    def numbers(self, window: Window, level: int) -> Tensor:
        """Return which samples of a window of any level are no NaN [h, w], bool: where any pixel has none."""
        return self._where_any(window, level, Raster.numbers)

    def _where_any(self, window: Window, level: int, which: Callable[[Raster], Tensor]) -> Tensor:
        found = self._nearest(level)
        parts = []
        for part in self._strips(window, level - found):
            finer = self._finer(part, found, level)
            known = which(self.read(finer, found))[None, None].float()
            side = 1 << (level - found)
            down, across = (-n % side for n in known.shape[2:])
            parts.append(F.max_pool2d(F.pad(known, (0, across, 0, down)), side)[0, 0] > 0)
        return torch.cat(parts)

    def means(self, window: Window, level: int) -> Tensor:
        """Return the values of the bands of a window of any level [B, h, w], as they are; nothing means 0."""
        found = self._nearest(level)
        strips = []
        for part in self._strips(window, level - found):
            raster = self.read(self._finer(part, found, level), found)
            values = raster.values.astype(np.float32)
            missing = np.isnan(values) | (False if raster.nodata is None else values == raster.nodata)
            image = torch.from_numpy(np.where(missing, np.float32(0), values)).permute(2, 0, 1)[None]
            for _ in range(level - found):
                image = halve(image)
            strips.append(image[0])
        return torch.cat(strips, 1)

    def _nearest(self, level: int) -> int:
        """Return the coarsest level of the file that is not coarser than one."""
        return max(known for known in self.levels if known <= level)

    def _strips(self, window: Window, steps: int) -> Iterator[Window]:
        """Cut a window into strips that are small at a level `steps` finer."""
        rows = max(1, (STRIP // max(1, window.width << steps)) >> steps)
        for top in range(window.top, window.bottom, rows):
            yield Window(top, window.left, min(rows, window.bottom - top), window.width)

    def _finer(self, window: Window, found: int, level: int) -> Window:
        """Return what a window of a level covers at a finer one."""
        steps, (height, width) = level - found, self.size_at(found)
        top, left = window.top << steps, window.left << steps
        return Window(
            top, left, min(window.bottom << steps, height) - top, min(window.right << steps, width) - left
        )

    def _reduced(self, window: Window, found: int, level: int, wanted: ImageFormat) -> Tensor:
        """Read a window of a level as means of a finer one."""
        image = self.read(self._finer(window, found, level), found).image(wanted)[None]
        for _ in range(level - found):
            image = halve(image)
        return image[0]


@dataclass
class ArraySource(Source):
    """An array [H, W] or [H, W, bands] in memory, or a memmap of one.

    Attributes:
        values: The array.
        name: What the user calls it.
        stamp: What changes when a file does.
    """

    values: Array
    name: str = "the image"
    alpha: Array | None = None
    nodata: float | None = None
    stamp: tuple[object, ...] = ()
    size: tuple[int, int] = field(init=False)
    bands: int = field(init=False)
    dtype: np.dtype[Any] = field(init=False)

    def __post_init__(self) -> None:
        if self.values.ndim == 2:
            self.values = self.values[:, :, None]
        shape = self.values.shape
        if self.values.ndim != 3 or not self.values.size or shape[2] > MOST_BANDS:
            raise ImageError(
                f"{self.name} is an array {list(shape)}; give [H, W], or [H, W, bands] with at most "
                f"{MOST_BANDS} bands."
            )
        if self.values.dtype.kind not in "uif":
            raise ImageError(
                f"{self.name} holds numbers of type {self.values.dtype}; give whole numbers or floats."
            )
        self.size, self.bands, self.dtype = (shape[0], shape[1]), shape[2], self.values.dtype

    @property
    def identity(self) -> tuple[object, ...]:
        """The array's shape and type, and the file's stamp."""
        return (*super().identity, *self.stamp)

    def read(self, window: Window, level: int = 0) -> Raster:
        """Copy a window."""
        place = slice(window.top, window.bottom), slice(window.left, window.right)
        alpha = None if self.alpha is None else np.array(self.alpha[place])
        return Raster(Path(self.name), np.array(self.values[place]), alpha, self.nodata)


def open_source(given: object, bands: tuple[int, ...] = ()) -> Source:
    """Open an image: a file that is read by windows where its kind allows it, else decoded once; or an array.

    Args:
        given: File name, array [H, W(, bands)], or a source, which is returned as it is.
        bands: Bands that are wanted, counted from 1; all if empty. Files that rasterio reads.

    Raises:
        ImageError: It is missing, unreadable or no image.
        ValueError: The package that reads its kind is not installed; the sentence says what to install.
    """
    if isinstance(given, Source):
        return given
    if isinstance(given, np.ndarray):
        return ArraySource(given)
    need_path(given, "the image", "the name of a file, or an array [H, W, bands]")
    path = Path(str(given))
    kind = path.suffix.lower()
    if kind in FOLDERS or (
        path.is_dir() and any((path / mark).is_file() for mark in (".zattrs", "zarr.json"))
    ):
        from foveal.inference.large.zarr_files import ZarrSource

        return ZarrSource(path)
    check_file(path)
    if kind in SLIDES:
        from foveal.inference.large.slide import SlideSource

        return SlideSource(path)
    if bands or kind in TIFFS:
        from foveal.inference.large.geotiff import GeoSource, has_rasterio

        if bands or kind not in (".tif", ".tiff") or has_rasterio():
            return GeoSource(path, bands)
    return _in_memory(path, kind)


def stamp_of(path: Path) -> tuple[object, ...]:
    """Return what changes when a file does."""
    found = path.stat()
    return str(path.resolve()), found.st_size, found.st_mtime_ns


def missing(package: str, extra: str, what: str) -> ValueError:
    """Say what to install."""
    return ValueError(f"{what} needs {package}, which is not installed; pip install 'foveal[{extra}]'")


def _in_memory(path: Path, kind: str) -> Source:
    """Map an array, or decode an ordinary image once."""
    if kind in ARRAYS:
        try:
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # whatever a damaged file makes of NumPy
            reason = " ".join(str(error).split())[:200]
            raise ImageError(f"{path} is no array, or damaged ({reason}).") from None
        if not isinstance(values, np.ndarray):
            raise ImageError(f"{path} holds several arrays; give one array in a .npy file.")
        return ArraySource(values, str(path), stamp=stamp_of(path))
    found = read_raster(path)
    return ArraySource(found.values, str(path), found.alpha, found.nodata, stamp_of(path))
