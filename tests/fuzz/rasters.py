"""What large images come from, changed and read: GeoTIFF, metadata of OME-Zarr, GeoJSON, parts of a run.

GDAL and zarr are the only decoders that there are: an image in 0..1 of the size that was asked for is all
that can be said. A header of a part lies behind a checksum, which hides it from changes of the file; here it
is changed by itself, and sealed again.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from targets import Target
from torch import Tensor

from foveal.data.raster import ImageFormat
from foveal.inference.large import ArraySource, Window
from foveal.inference.large.mask import open_mask
from foveal.inference.large.parts import MOST_BYTES, Packed, pack
from foveal.inference.large.source import Source, open_source
from sheets import TRANSFORM, sheet, write_geotiff, write_zarr

SIZE = 40, 60
LARGEST = 64
"""Side of what is read of an image, whatever size it says [px]."""


def looked_at(source: Source) -> list[Tensor]:
    """Read a corner of an image at levels 0 to 2."""
    found = []
    for level in range(3):
        height, width = (min(side, LARGEST) for side in source.size_at(level))
        made = source.image(Window(0, 0, height, width), level, ImageFormat(source.bands, (0.0, 255.0)))
        assert made.shape == (source.bands, height, width)
        found.append(made)
    return found


def are_images(found: list[Tensor], data: bytes) -> None:
    for image in found:
        assert image.dtype == torch.float32 and bool(((image >= 0) & (image <= 1)).all())


def geotiff(folder: Path) -> Target:
    pytest.importorskip("rasterio")
    path = write_geotiff(folder / "a.tif", sheet(*SIZE), (2,))
    return Target(path, lambda: looked_at(open_source(path)), are_images)


def ome_zarr(folder: Path) -> Target:
    """Change what a group says of its axes and levels."""
    pytest.importorskip("zarr")
    place = write_zarr(folder / "a.zarr", sheet(*SIZE))
    return Target(place / ".zattrs", lambda: looked_at(open_source(place)), are_images)


def ome_zarr_array(folder: Path) -> Target:
    """Change what an array says of its shape, chunks and numbers."""
    pytest.importorskip("zarr")
    place = write_zarr(folder / "a.zarr", sheet(*SIZE))
    return Target(place / "0" / ".zarray", lambda: looked_at(open_source(place)), are_images)


def polygons(folder: Path, georeferenced: bool) -> Target:
    pytest.importorskip("rasterio")
    source: Source = ArraySource(sheet(*SIZE))
    left, top, side, down = 10.0, 10.0, 20.0, 20.0
    said: dict[str, Any] = {"type": "FeatureCollection"}
    if georeferenced:
        source = open_source(write_geotiff(folder / "a.tif", sheet(*SIZE)))
        left, top, side, down = TRANSFORM[2] + 5, TRANSFORM[5] - 5, 10.0, -10.0
        said["crs"] = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32631"}}
    ring = [[left, top], [left + side, top], [left + side, top + down], [left, top + down], [left, top]]
    several = [[[[x + 2, y] for x, y in ring]], [ring]]
    said["features"] = [
        {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}},
        {"type": "Feature", "geometry": {"type": "MultiPolygon", "coordinates": several}},
    ]
    path = folder / "mask.geojson"
    path.write_text(json.dumps(said))

    def is_mask(found: Tensor, data: bytes) -> None:
        assert found.shape == SIZE and found.dtype == torch.bool

    return Target(path, lambda: open_mask(path, source).read(Window(0, 0, *SIZE), 0), is_mask)


def header_of_part(folder: Path) -> Target:
    labels, counts = np.arange(900, dtype=np.uint8).reshape(900, 1) % 11, np.arange(3, dtype=np.int64)
    whole = pack({"labels": labels, "counts": counts})
    size = int.from_bytes(whole[:4], "little")
    path, sealed = folder / "header.json", folder / "part"
    path.write_bytes(whole[8 : 8 + size])

    def read() -> list[Any]:
        text = path.read_bytes()
        head = len(text).to_bytes(4, "little") + zlib.crc32(text).to_bytes(4, "little")
        sealed.write_bytes(head + text + whole[8 + size :])
        found = Packed(sealed)
        return [found.rows("labels", 100, 800), found.rows("counts")]

    def are_arrays(found: list[Any], data: bytes) -> None:
        said = json.loads(data)
        for array, name in zip(found, ("labels", "counts"), strict=True):
            assert array.nbytes <= MOST_BYTES and array.dtype.str == said[name]["kind"]
            assert list(array.shape[1:]) == said[name]["shape"][1:]

    return Target(path, read, are_arrays)


KINDS: dict[str, Callable[[Path], Target]] = {
    "GeoTIFF": geotiff, "OME-Zarr": ome_zarr, "array of OME-Zarr": ome_zarr_array,
    "polygons": lambda folder: polygons(folder, False),
    "polygons on the ground": lambda folder: polygons(folder, True),
    "header of a part": header_of_part,
}  # fmt: skip
