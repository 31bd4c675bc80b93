"""Images for the tests of large images: arrays, rasters, slides; and a small network."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import foveal
from foveal.calibration.engine import Engine
from samples import headless

Array = np.ndarray[Any, Any]
TILE, LEVEL = 16, 1
TRANSFORM = (0.5, 0.0, 1000.0, 0.0, -0.5, 9000.0)


@cache
def engine(channels: int = 3, classes: int = 4) -> Engine:
    """A network of stride 4 without dense modules, of which all classes occur."""
    torch.manual_seed(0)
    network = headless(classes)
    if channels != 3:
        network[0] = nn.Conv2d(channels, 8, 3, 2, 1, bias=False)
    network.eval()
    with torch.no_grad():
        x = torch.rand(1, channels, 24, 24)
        logits = network(F.interpolate(x, (96, 96), mode="bilinear"))
        network[-1].weight /= logits.std((0, 2, 3)).view(-1, 1, 1, 1)
        network[-1].bias.copy_((network[-1].bias - logits.mean((0, 2, 3))) / logits.std((0, 2, 3)))
    return foveal.adapt(network, tile=TILE, coarse_level=LEVEL).engine


def sheet(height: int = 150, width: int = 220, channels: int = 3, seed: int = 0) -> Array:
    """Bytes [H, W, C], smooth and different everywhere."""
    few = torch.rand(
        1, channels, height // 6 + 2, width // 6 + 2, generator=torch.Generator().manual_seed(seed)
    )
    image = F.interpolate(few, (height, width), mode="bicubic").clamp(0, 1)[0]
    return (image * 255).round().byte().permute(1, 2, 0).numpy()


def spotted(height: int = 256, width: int = 384) -> tuple[Array, Array]:
    """A sheet that is blank but for two places, and where these are [H, W]."""
    image, where = np.full((height, width, 3), 240, np.uint8), np.zeros((height, width), bool)
    for top, left in ((32, 48), (160, 256)):
        image[top : top + 64, left : left + 80] = sheet(64, 80, seed=top)
        where[top : top + 64, left : left + 80] = True
    return image, where


def write_geotiff(path: Path, values: Array, overviews: tuple[int, ...] = (), **profile: Any) -> Path:
    """Write a tiled GeoTIFF [H, W, C] with a georeference."""
    import rasterio

    made = {"driver": "GTiff", "height": values.shape[0], "width": values.shape[1], "count": values.shape[2]}
    made |= {"dtype": values.dtype, "tiled": True, "blockxsize": 64, "blockysize": 64, "crs": "EPSG:32631"}
    made |= {"transform": rasterio.Affine(*TRANSFORM), **profile}
    with rasterio.open(path, "w", **made) as file:
        file.write(np.moveaxis(values, -1, 0))
        if overviews:
            file.build_overviews(overviews, rasterio.enums.Resampling.average)
    return path


def write_zarr(path: Path, values: Array, levels: int = 2) -> Path:
    """Write an OME-Zarr image with the axes c, y, x."""
    import zarr

    group = zarr.open_group(path, mode="w", zarr_format=2)
    planes = np.moveaxis(values, -1, 0)
    for k in range(levels):
        small = planes[:, :: 1 << k, :: 1 << k]
        group.create_array(str(k), shape=small.shape, chunks=(1, 64, 64), dtype=small.dtype)[:] = small
    axes = [{"name": name} for name in "cyx"]
    group.attrs["multiscales"] = [
        {"version": "0.4", "axes": axes, "datasets": [{"path": str(k)} for k in range(levels)]}
    ]
    return path


def write_slide(path: Path, values: Array) -> Path:
    """Write a slide as scanners of Aperio do: a pyramid of pages, tiled."""
    import tifffile

    with tifffile.TiffWriter(path) as file:
        text = "Aperio Image Library v10\r\n|AppMag = 20|MPP = 0.5"
        for k, small in enumerate((values, values[::8, ::8], values[::4, ::4])):  # the second is a thumbnail
            how: dict[str, Any] = {"tile": (64, 64)} if k != 1 else {"rowsperstrip": 16}
            file.write(small, photometric="rgb", description=text, metadata=None, **how)
    return path
