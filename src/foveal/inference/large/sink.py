"""Where labels go, strip by strip: PNG, tiled COG, OME-Zarr. What is written appears whole or not at all."""

from __future__ import annotations

import shutil
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from foveal.inference.large.geotiff import import_rasterio
from foveal.inference.large.parts import BAND
from foveal.inference.large.places import Georeference
from foveal.inference.large.swap import put_in_place
from foveal.inference.large.zarr_files import import_zarr
from foveal.storage.atomic import replacing
from foveal.storage.labels import VOID
from foveal.storage.pictures import Colour

Array = np.ndarray[Any, Any]
Strips = Callable[[], Iterator[Array]]
"""Makes strips [rows, W] of a map, `ROWS` rows each but the last, from the top."""
ROWS = BAND
SIDE = 512
"""Of the tiles of a COG and the chunks of OME-Zarr [px]."""
MOST_PNG = (1 << 31) - 1
"""Largest side of a PNG [px]."""
LEAST = 256
"""Longest side of the last level of OME-Zarr [px]."""


@dataclass(frozen=True)
class Layer:
    """A map of bytes that is written.

    Attributes:
        size: Height and width [px].
        strips: Makes its strips.
        palette: Colour of every class; empty for grey values.
        classes: Names of the classes.
        place: Where it lies on the ground.
    """

    size: tuple[int, int]
    strips: Strips
    palette: Sequence[Colour] = ()
    classes: Sequence[str] = ()
    place: Georeference | None = None


def find_sink(out: Path) -> Callable[[Layer, Path, Path], None]:
    """Return what writes a layer to a file or folder, with a folder for what is temporary.

    Raises:
        ValueError: There is no such format, a package is missing, or something else is in the way.
    """
    kind = out.suffix.lower()
    if kind not in SINKS:
        raise ValueError(f"-o {out} has no suffix that is known; give one of {', '.join(SINKS)}")
    if kind in (".tif", ".tiff"):
        import_rasterio()
    if kind in (".zarr",):
        import_zarr()
        if out.exists() and not any((out / mark).is_file() for mark in (".zgroup", "zarr.json")):
            raise ValueError(f"-o {out} is there and is no zarr folder; give another name")
    elif out.is_dir():
        raise ValueError(f"-o {out} is a folder; give a file")
    if not out.parent.is_dir():
        raise ValueError(f"-o {out}: there is no folder {out.parent}; make it first")
    return SINKS[kind]


def beside(out: Path, what: str) -> Path:
    """Return the name of a second result."""
    return out.with_name(f"{out.stem}_{what}{out.suffix}")


def write_png(layer: Layer, out: Path, temporary: Path) -> None:
    """Write a PNG, in grey or with a palette, one strip in memory."""
    height, width = layer.size
    if max(layer.size) > MOST_PNG:
        raise ValueError(f"-o {out}: a PNG has at most {MOST_PNG} px a side; write .tif")
    kind = 3 if layer.palette else 0
    with replacing(out) as part, part.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        _chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))
        if layer.palette:
            colours = [*layer.palette, *[(0, 0, 0)] * (256 - len(layer.palette))]
            _chunk(file, b"PLTE", bytes(channel for colour in colours for channel in colour))
        packer = zlib.compressobj(4)
        for strip in layer.strips():
            lines = np.zeros((len(strip), width + 1), np.uint8)  # each begins with its filter, none
            lines[:, 1:] = strip
            if data := packer.compress(lines.tobytes()):
                _chunk(file, b"IDAT", data)
        _chunk(file, b"IDAT", packer.flush())
        _chunk(file, b"IEND", b"")


def write_cog(layer: Layer, out: Path, temporary: Path) -> None:
    """Write a cloud-optimised GeoTIFF: tiles, overviews, palette and georeference.

    Raises:
        OSError: It cannot be written.
    """
    rasterio = import_rasterio()
    from rasterio.shutil import copy

    plain, whole = temporary / "plain.tif", temporary / "whole.tif"
    height, width = layer.size
    profile: dict[str, Any] = {"driver": "GTiff", "height": height, "width": width, "count": 1}
    profile |= {"dtype": "uint8", "tiled": True, "blockxsize": SIDE, "blockysize": SIDE}
    profile |= {"compress": "deflate", "zlevel": 1, "bigtiff": "if_safer"}
    if layer.palette:
        profile |= {"nodata": VOID}
    if layer.place is not None:
        profile |= {"transform": rasterio.Affine(*layer.place.transform), "crs": layer.place.crs or None}
    try:
        with rasterio.Env(CPL_TMPDIR=str(temporary)):
            with rasterio.open(plain, "w", **profile) as file:
                top = 0
                for strip in layer.strips():
                    file.write(strip, 1, window=((top, top + len(strip)), (0, width)))
                    top += len(strip)
                if layer.palette:
                    file.write_colormap(1, {k: (*colour, 255) for k, colour in enumerate(layer.palette)})
                if layer.classes:
                    file.update_tags(classes=",".join(layer.classes))
            resampling = "MODE" if layer.palette else "AVERAGE"
            copy(plain, whole, driver="COG", compress="DEFLATE", blocksize=SIDE, bigtiff="IF_SAFER",
                 overview_resampling=resampling)  # fmt: skip
            _check_whole(rasterio, whole, layer.size)
    except rasterio.errors.RasterioError as error:
        raise OSError(
            f"{out} cannot be written ({' '.join(str(error.__cause__ or error).split())[:200]})"
        ) from None
    with replacing(out) as part:
        shutil.copyfile(whole, part)
    plain.unlink()
    whole.unlink()


def write_zarr(layer: Layer, out: Path, temporary: Path) -> None:
    """Write a label image of OME-Zarr 0.4: levels of every second sample, colours of the classes.

    Raises:
        OSError: It cannot be written; an old result is as it was.
    """
    try:
        folder = _zarr_folder(layer, out.stem, temporary)
        put_in_place(folder, out, temporary)
    except OSError as error:
        raise OSError(f"{out} cannot be written ({error.strerror or error})") from None


def _zarr_folder(layer: Layer, name: str, temporary: Path) -> Path:
    """Write the folder of an OME-Zarr into a temporary one."""
    zarr = import_zarr()
    folder = temporary / "whole.zarr"
    if folder.exists():
        shutil.rmtree(folder)
    group = zarr.open_group(folder, mode="w", zarr_format=2)
    levels = 1
    while max(layer.size) >> levels >= LEAST and 1 << levels <= ROWS:
        levels += 1
    arrays = []
    for level in range(levels):
        shape = tuple(-(-side >> level) for side in layer.size)
        chunks = tuple(min(SIDE, side) for side in shape)
        arrays.append(
            group.create_array(str(level), shape=shape, chunks=chunks, dtype="uint8", fill_value=VOID)
        )
    top = 0
    for strip in layer.strips():
        for level, array in enumerate(arrays):
            small = strip[:: 1 << level, :: 1 << level]
            array[top >> level : (top >> level) + len(small)] = small
        top += len(strip)
    group.attrs.update(_ome(layer, name, levels))
    return folder


def _ome(layer: Layer, name: str, levels: int) -> dict[str, Any]:
    """Return what OME-Zarr says of a label image."""
    axes = [{"name": axis, "type": "space"} for axis in "yx"]
    scales = [
        {"path": str(k), "coordinateTransformations": [{"type": "scale", "scale": [float(1 << k)] * 2}]}
        for k in range(levels)
    ]
    found: dict[str, Any] = {
        "multiscales": [{"version": "0.4", "name": name, "axes": axes, "datasets": scales}],
    }
    if layer.palette:
        colours = [{"label-value": k, "rgba": [*colour, 255]} for k, colour in enumerate(layer.palette)]
        names = [{"label-value": k, "class": text} for k, text in enumerate(layer.classes)]
        found["image-label"] = {"version": "0.4", "colors": colours, "properties": names}
    return found


def _check_whole(rasterio: Any, path: Path, size: tuple[int, int]) -> None:
    """Read a file once: GDAL does not say of every write that it failed.

    Raises:
        RasterioError: It is not whole.
    """
    with rasterio.open(path) as file:
        if (file.height, file.width) != size:
            raise rasterio.errors.RasterioIOError("it is not whole")
        for top in range(0, size[0], SIDE):
            file.read(1, window=((top, min(size[0], top + SIDE)), (0, size[1])))


def _chunk(file: IO[bytes], kind: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))


SINKS: dict[str, Callable[[Layer, Path, Path], None]] = {
    ".png": write_png,
    ".tif": write_cog,
    ".tiff": write_cog,
    ".zarr": write_zarr,
}
"""What writes a kind of file."""
