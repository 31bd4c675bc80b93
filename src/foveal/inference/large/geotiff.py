"""GeoTIFF and COG through rasterio (`pip install foveal[geo]`): windows, overviews, bands, nodata, place."""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from foveal.data.decode import ImageError
from foveal.data.raster import Raster
from foveal.inference.large.places import Georeference
from foveal.inference.large.source import MOST_BANDS, Source, Window, missing, stamp_of

CACHE = "64"
"""Of GDAL's blocks [MiB]; by itself it takes a twentieth of the machine's memory."""


def has_rasterio() -> bool:
    """Whether rasterio is installed."""
    return importlib.util.find_spec("rasterio") is not None


def import_rasterio() -> Any:
    """Import rasterio. If nobody has said how much GDAL may keep, it keeps little.

    Raises:
        ValueError: It is not installed.
    """
    os.environ.setdefault("GDAL_CACHEMAX", CACHE)
    try:
        import rasterio
    except ImportError:
        raise missing("rasterio", "geo", "a georeferenced raster") from None
    logging.getLogger("rasterio").setLevel(logging.CRITICAL)  # what goes wrong is said in our own sentence
    # An image without georeference is no mistake; the filter holds for the process, as those of Pillow do.
    warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)
    return rasterio


class GeoSource(Source):
    """A raster that rasterio opens.

    Overviews are used where their sides are those of a level; a band that is transparency is no band. A file
    whose blocks are whole lines is read all the same, in strips.

    Args:
        path: The file.
        bands: Bands that are wanted, counted from 1; all but the transparency if empty.

    Raises:
        ImageError: It cannot be opened, or has no such band.
        ValueError: rasterio is not installed.
    """

    def __init__(self, path: Path, bands: tuple[int, ...] = ()) -> None:
        rasterio = import_rasterio()
        self.path, self.name = path, str(path)
        try:
            self._file = rasterio.open(path)
        except Exception as error:  # GDAL's, of many types
            raise self._damaged(error) from None
        file = self._file
        self.size, self.nodata = (file.height, file.width), file.nodata
        kinds = [interpretation.name for interpretation in file.colorinterp]
        alpha = [k + 1 for k, kind in enumerate(kinds) if kind == "alpha"]
        self._bands = tuple(bands) or tuple(k for k in range(1, file.count + 1) if k not in alpha)
        if not self._bands or not all(1 <= band <= file.count for band in self._bands):
            raise ImageError(f"{path} has bands 1 to {file.count}; given {', '.join(map(str, self._bands))}.")
        if len(self._bands) > MOST_BANDS:
            raise ImageError(f"{path} has {file.count} bands; choose at most {MOST_BANDS} with --bands.")
        self._alpha = alpha[0] if alpha else None
        self.bands, self.dtype = len(self._bands), np.dtype(file.dtypes[self._bands[0] - 1])
        if self.dtype.kind not in "uif":
            raise ImageError(f"{path} holds numbers of type {self.dtype}; give whole numbers or floats.")
        self._palette = self._colours(bands)
        with rasterio.Env():  # GDAL reads more of the file here, and would say what is wrong by itself
            factors = file.overviews(self._bands[0])
            self._overviews = {0: file, **self._open_overviews(rasterio, factors)}
        self.levels = tuple(sorted(self._overviews))
        self.place = Georeference(tuple(file.transform)[:6], file.crs.to_wkt() if file.crs else "")

    def read(self, window: Window, level: int = 0) -> Raster:
        """Read a window of the file, or of an overview."""
        file = self._overviews[level]
        place = ((window.top, window.bottom), (window.left, window.right))
        indices = [*self._bands, *([self._alpha] if self._alpha else [])]
        try:
            with import_rasterio().Env():
                values = file.read(indices, window=place)
        except Exception as error:
            raise self._damaged(error) from None
        values = np.ascontiguousarray(np.moveaxis(values, 0, -1))
        if self._palette is not None:
            return Raster(self.path, self._palette[values[:, :, 0]], None, None)
        if self._alpha is None:
            return Raster(self.path, values, None, self.nodata)
        return Raster(self.path, values[:, :, :-1], values[:, :, -1], self.nodata)

    @property
    def identity(self) -> tuple[object, ...]:
        """The file's stamp and the bands."""
        return (*super().identity, *stamp_of(self.path), self._bands)

    def _colours(self, chosen: tuple[int, ...]) -> np.ndarray[Any, Any] | None:
        """Return the colours of a file with a palette [256, 3]; None if it has none, or a band was chosen."""
        if chosen or self._file.count != 1 or self._file.colorinterp[0].name != "palette":
            return None
        if self.dtype != np.uint8:
            raise ImageError(
                f"{self.path} has a palette of {self.dtype}; give bytes, or --bands 1 for its ids."
            )
        table = self._file.colormap(1)
        self.bands = 3
        return np.array([table.get(k, (0, 0, 0, 255))[:3] for k in range(256)], np.uint8)

    def _open_overviews(self, rasterio: Any, factors: list[int]) -> dict[int, Any]:
        """Open the overviews that have the sides of a level."""
        found: dict[int, Any] = {}
        for k, factor in enumerate(factors):
            level = factor.bit_length() - 1
            if factor != 1 << level:
                continue
            try:
                overview = rasterio.open(self.path, overview_level=k)
            except Exception as error:
                raise self._damaged(error) from None
            if (overview.height, overview.width) == self.size_at(level):
                found[level] = overview
        return found

    def _damaged(self, error: Exception) -> ImageError:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        return ImageError(f"{self.path} is damaged, cut short, or of a kind that cannot be read ({reason}).")
