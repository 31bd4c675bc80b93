"""Data sets as people have them at home: discs on noise, in files of any bands and bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

SIZE = (90, 120)


def disc(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Draw where the disc of an image is [H, W], 0 or 1."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    return ((rows - 40 - 5 * number) ** 2 + (columns - 60) ** 2 < 28**2).astype(np.uint8)


def image(bands: int, number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Draw an image [H, W, B] in 0..1; its left columns are 0 in every band."""
    noise = np.random.default_rng(number).random((*size, bands)) * 0.3 + 0.1
    found = noise + 0.5 * disc(number, size)[:, :, None]
    found[:, :32] = 0
    return found


def write_tiff(path: Path, values: np.ndarray, nodata: str | None = None) -> None:
    """Write bands [H, W, B] as one page, with the value that means nothing."""
    tags = [] if nodata is None else [(42113, "s", 0, nodata, True)]
    values = values[:, :, 0] if values.shape[2] == 1 else values
    tifffile.imwrite(path, values, photometric="minisblack", planarconfig="contig", extratags=tags)


def write_own(root: Path, bands: int, kind: str, count: int = 4) -> Path:
    """Write images and masks of 0 and 255; the last image has no mask."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        values, name = image(bands, number), root / "images" / str(number)
        if kind == "png":
            bytes_ = (values * 255).astype(np.uint8)
            Image.fromarray(bytes_[:, :, 0] if bands == 1 else bytes_).save(name.with_suffix(".png"))
        elif kind == "npy":
            np.save(name.with_suffix(".npy"), (values * 255).astype(np.uint8))
        elif kind == "uint16":
            write_tiff(name.with_suffix(".tif"), (values * 65535).astype(np.uint16))
        else:
            write_tiff(name.with_suffix(".tif"), (values * 5000).astype(np.float32))
        if number < count - 1:
            Image.fromarray(disc(number) * 255).save(root / "masks" / f"{number}.png")
    return root
