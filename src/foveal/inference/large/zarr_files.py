"""OME-Zarr through zarr (`pip install foveal[slide]`): images in, label images out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from foveal.data.decode import ImageError
from foveal.data.raster import Raster
from foveal.inference.large.source import MOST_BANDS, Source, Window, missing


def import_zarr() -> Any:
    """Import zarr.

    Raises:
        ValueError: It is not installed.
    """
    try:
        import zarr
    except ImportError:
        raise missing("zarr", "slide", "an OME-Zarr image") from None
    return zarr


class ZarrSource(Source):
    """A multiscale image of OME-Zarr 0.4 or 0.5: the axes y and x, and c if there is one.

    Of the axes t and z the first plane is taken.

    Args:
        path: Its folder.

    Raises:
        ImageError: It holds no such image.
        ValueError: zarr is not installed.
    """

    def __init__(self, path: Path) -> None:
        zarr = import_zarr()
        self.path, self.name = path, str(path)
        try:
            group = zarr.open_group(path, mode="r")
            attributes = dict(group.attrs)
            scales = attributes.get("ome", attributes)["multiscales"][0]
            names = [axis if isinstance(axis, str) else axis["name"] for axis in scales["axes"]]
            arrays = [group[entry["path"]] for entry in scales["datasets"]]
            self._axes = tuple(names)
            y, x = names.index("y"), names.index("x")
            sizes = [(int(a.shape[y]), int(a.shape[x])) for a in arrays]
            if not arrays or any(len(a.shape) != len(set(names)) for a in arrays):
                raise ValueError("it has no datasets, or their axes are others")
            first = arrays[0]
            self.size, self.dtype = sizes[0], np.dtype(first.dtype)
            self.bands = int(first.shape[names.index("c")]) if "c" in names else 1
        except Exception as error:  # of zarr, or of what is missing
            reason = " ".join(str(error).split())[:200]
            raise ImageError(f"{path} is no OME-Zarr image, or damaged ({reason}).") from None
        if self.dtype.kind not in "uif" or not 1 <= self.bands <= MOST_BANDS or not all(self.size):
            raise ImageError(
                f"{path} holds {self.dtype} {list(first.shape)}; give numbers of 1 to {MOST_BANDS} bands."
            )
        self._arrays = {0: first}
        for array, sides in zip(arrays[1:], sizes[1:], strict=True):
            level = round(np.log2(self.size[1] / max(1, sides[1])))
            if level > 0 and sides == self.size_at(level):
                self._arrays[level] = array
        self.levels = tuple(sorted(self._arrays))

    def read(self, window: Window, level: int = 0) -> Raster:
        """Read a window of a scale."""
        place = {
            "y": slice(window.top, window.bottom),
            "x": slice(window.left, window.right),
            "c": slice(None),
        }
        index = tuple(place.get(name, 0) for name in self._axes)
        try:
            values = np.asarray(self._arrays[level][index])
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise ImageError(f"{self.path} is damaged or cut short ({reason}).") from None
        kept = [name for name in self._axes if name in place]
        if "c" not in kept:
            return Raster(self.path, np.ascontiguousarray(values.transpose(_order(kept, "yx")))[:, :, None])
        return Raster(self.path, np.ascontiguousarray(values.transpose(_order(kept, "yxc"))))

    @property
    def identity(self) -> tuple[object, ...]:
        """The folder and when it was written."""
        newest = max((f.stat().st_mtime_ns for f in self.path.iterdir()), default=0)
        return (*super().identity, str(self.path.resolve()), newest)


def _order(axes: list[str], wanted: str) -> list[int]:
    return [axes.index(name) for name in wanted]
