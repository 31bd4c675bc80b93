"""Polygons of GeoJSON as a mask: checked when they are read, and drawn window by window."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from foveal.inference.large.geotiff import import_rasterio
from foveal.inference.large.source import Source, Window
from foveal.storage.reading import read_json
from foveal.storage.schema import Number, read_as

LONGITUDE_LATITUDE = "OGC:CRS84"
Position = Annotated[list[Number], Field(min_length=2, max_length=8)]
Rings = Annotated[list[Annotated[list[Position], Field(min_length=4)]], Field(min_length=1)]
"""Coordinates of a polygon: its border, and those of its holes, each closed."""


@dataclass(frozen=True)
class Polygons:
    """Wants what lies in polygons, or touches them.

    Attributes:
        shapes: Geometries as GeoJSON has them, in the coordinates of the image.
        transform: From pixels to these coordinates, six numbers.
        name: What the user gave.
    """

    shapes: tuple[Any, ...]
    transform: tuple[float, float, float, float, float, float]
    name: str

    def read(self, window: Window, level: int) -> Tensor:
        """Draw the polygons into the window."""
        rasterio = import_rasterio()
        from rasterio.features import rasterize
        from rasterio.transform import Affine

        side, (a, b, c, d, e, f) = 1 << level, self.transform
        x, y = window.left * side, window.top * side
        place = Affine(a * side, b * side, a * x + b * y + c, d * side, e * side, d * x + e * y + f)
        try:
            drawn = rasterize(
                self.shapes,
                (window.height, window.width),
                transform=place,
                all_touched=True,
                dtype="uint8",
            )
        except (ValueError, rasterio.errors.RasterioError) as error:
            raise ValueError(f"--mask {self.name} holds geometries that cannot be drawn ({error})") from None
        return torch.from_numpy(drawn > 0)


def read_polygons(name: str, source: Source) -> Polygons:
    """Read the polygons of a GeoJSON file, and bring them to the coordinates of the image.

    Without a member `crs` they are in longitude and latitude, as RFC 7946 has it; where the image has no
    coordinate reference system, they count its pixels, column and row.

    Raises:
        ValueError: The file holds no polygons, one is damaged, or cannot be brought to the image.
    """
    import_rasterio()
    from rasterio.warp import transform_geom

    found = read_json(name, "GeoJSON file")
    shapes: list[Any] = []
    _collect(found, shapes, f"--mask {name}")
    if not shapes:
        raise ValueError(
            f"--mask {name} has no polygon; give GeoJSON with Polygon or MultiPolygon geometries"
        )
    place = source.place
    transform = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0) if place is None else place.transform
    if place is not None and place.crs:
        try:
            crs = found["crs"]["properties"]["name"] if found.get("crs") else LONGITUDE_LATITUDE
            shapes = [transform_geom(crs, place.crs, shape) for shape in shapes]
        except Exception as error:  # of GDAL, or of geometries that are none
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"--mask {name} cannot be brought to the image's coordinates ({reason})"
            ) from None
    digest = hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]
    return Polygons(tuple(shapes), transform, f"{name} {digest}")


def _collect(value: Any, shapes: list[Any], where: str) -> None:
    """Gather the polygons of features and collections; those without coordinates are none (RFC 7946)."""
    kind = value.get("type") if isinstance(value, dict) else None
    if kind in ("Polygon", "MultiPolygon"):
        held = value.get("coordinates")
        form: Any = Rings if kind == "Polygon" else list[Rings]
        if held != []:
            shapes.append({"type": kind, "coordinates": read_as(form, held, where, f"{kind} of GeoJSON")})
    elif kind == "Feature":
        _collect(value.get("geometry"), shapes, where)
    elif kind in ("FeatureCollection", "GeometryCollection"):
        parts = value.get("features" if kind == "FeatureCollection" else "geometries")
        for part in parts if isinstance(parts, Sequence) else ():
            _collect(part, shapes, where)
