"""Which places of a large image are wanted, asked window by window at the level of the coarse pass.

What is not wanted is neither read nor computed. A mask has the resolution of the coarse level: its samples
are squares of 2^level pixels, and one is wanted if any of its pixels is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.data.decode import ImageError
from foveal.inference.large.polygons import read_polygons
from foveal.inference.large.source import Source, Window, open_source

NODATA, AUTO = "nodata", "auto"
"""Words for what the image itself says: what its file declares to mean nothing; what is blank."""
POLYGONS = ".geojson", ".json"
THUMBNAIL = 2048
"""Longest side of the picture that is searched for what is blank [samples]."""
BINS = 256
GROWN = 2
"""Samples of that picture around what is found that are wanted too."""

Array = np.ndarray[Any, Any]


class Mask(Protocol):
    """Says which samples of a window are wanted."""

    @property
    def name(self) -> str:
        """What the user gave, with what tells it from another one."""

    def read(self, window: Window, level: int) -> Tensor:
        """Return which samples of a window of a level are wanted [h, w], bool."""


@dataclass(frozen=True)
class Everything:
    """Wants everything."""

    name: str = ""

    def read(self, window: Window, level: int) -> Tensor:
        """Return ones."""
        return torch.ones(window.height, window.width, dtype=torch.bool)


@dataclass(frozen=True)
class Numbers:
    """Wants what another mask wants, where there are numbers: pixels of a float image with NaN have no label.

    Attributes:
        source: The image.
        mask: The other mask.
    """

    source: Source
    mask: Mask

    @property
    def name(self) -> str:
        """That of the other mask, and that NaN is left out."""
        return f"{self.mask.name} numbers".lstrip()

    def read(self, window: Window, level: int) -> Tensor:
        """Return where there is no NaN; the image is not read where nothing is wanted."""
        wanted = self.mask.read(window, level)
        return wanted & self.source.numbers(window, level) if bool(wanted.any()) else wanted


@dataclass(frozen=True)
class Nodata:
    """Wants what means something in the image's own file."""

    source: Source
    name: str = NODATA

    def read(self, window: Window, level: int) -> Tensor:
        """Read the image there."""
        return self.source.wanted(window, level)


@dataclass(frozen=True)
class Picture:
    """Wants what is not 0 in a picture of the whole image, of any resolution.

    Attributes:
        source: The picture.
        size: Height and width of the image [px].
        name: What the user gave.
    """

    source: Source
    size: tuple[int, int]
    name: str

    def read(self, window: Window, level: int) -> Tensor:
        """Look up every sample; the pixels of a finer picture that lie in one are all asked."""
        places = []
        for first, count, side, own in zip(window[:2], window[2:], self.size, self.source.size, strict=True):
            at = np.arange(first, first + count, dtype=np.int64) << level
            low = at * own // side
            high = -(-np.minimum(at + (1 << level), side) * own // side)
            places.append((low, np.maximum(high, low + 1)))
        (top, bottom), (left, right) = places
        part = Window(int(top[0]), int(left[0]), int(bottom[-1] - top[0]), int(right[-1] - left[0]))
        given = self.source.read(part).given().numpy()
        sums = np.pad(given.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        rows, ends = (top - top[0])[:, None], (bottom - top[0])[:, None]
        columns, last = (left - left[0])[None], (right - left[0])[None]
        found = sums[ends, last] - sums[rows, last] - sums[ends, columns] + sums[rows, columns]
        return torch.from_numpy(found > 0)


def open_mask(given: str | Path | Array | None, source: Source) -> Mask:
    """Find what is wanted.

    Args:
        given: nodata, auto, a GeoJSON file of polygons, an image or a label map that is not 0 where wanted,
            of any resolution, an array of it; None for everything. Pixels of a float image that are NaN in
            any band are never wanted.
        source: The image.

    Raises:
        ValueError: There is no such file, or it holds no mask.
    """
    found = _open(given, source)
    return Numbers(source, found) if source.dtype.kind == "f" else found


def _open(given: str | Path | Array | None, source: Source) -> Mask:
    """Open the mask itself."""
    if given is None:
        return Everything()
    if isinstance(given, np.ndarray):
        values = given.astype(np.uint8) if given.dtype == bool else given
        return Picture(open_source(values), source.size, f"array {values.shape} {_digest(values)}")
    name = str(given)
    if name == NODATA:
        return Nodata(source)
    if name == AUTO:
        picture, digest = find_content(source)
        return Picture(open_source(picture), source.size, f"{AUTO} {digest}")
    if not Path(name).is_file():
        raise ImageError(
            f"--mask {name} does not exist; give {NODATA}, {AUTO}, a GeoJSON file of polygons, or an image "
            "that is not 0 where something is wanted."
        )
    if Path(name).suffix.lower() in POLYGONS:
        return read_polygons(name, source)
    opened = open_source(name)
    return Picture(opened, source.size, f"{name} {opened.identity}")


def find_content(source: Source) -> tuple[Array, str]:
    """Find what is not blank: colour or texture that a threshold tells from the ground.

    The image is looked at so coarsely that its longest side has at most `THUMBNAIL` samples. Saturation
    (tissue is coloured, glass is not), the deviation within 3 x 3 samples (content has edges, a blank has
    none), and then the distance from the colour of what is neither, are each split in two by Otsu's
    threshold. A sample is wanted if it lies above any of them, and so is what lies around it.

    Source: Otsu, "A threshold selection method from gray-level histograms", 1979.

    Returns:
        Picture [h, w], uint8, not 0 where something is; and what tells it from another one.
    """
    level = max(0, (max(source.size) - 1).bit_length() - THUMBNAIL.bit_length() + 1)
    image = _thumbnail(source, level)
    spread = image.amax(0) - image.amin(0)
    bright = image.mean(0)[None, None]
    around = F.pad(torch.cat([bright, bright**2]), (1, 1, 1, 1), mode="replicate")
    mean, square = F.avg_pool2d(around, 3, 1)[:, 0]
    texture = (square - mean**2).clamp(min=0).sqrt()
    found = (spread > otsu(spread)) | (texture > otsu(texture))
    if bool((~found).any()):  # what is smooth and grey but has another colour than the ground
        ground = image[:, ~found].median(1).values
        distance = (image - ground[:, None, None]).abs().amax(0)
        found |= distance > otsu(distance)
    window = 2 * GROWN + 1
    picture = F.max_pool2d(found[None, None].float(), window, 1, GROWN)[0, 0].numpy().astype(np.uint8)
    return picture, _digest(picture)


def otsu(values: Tensor) -> float:
    """Return the threshold that splits values into two sets of least variance; the largest if all alike."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-6:
        return high
    counts = torch.histc(values.float(), BINS, low, high).double()
    middles = low + (torch.arange(BINS).double() + 0.5) * (high - low) / BINS
    below = counts.cumsum(0)
    total, weighted = below[-1], (counts * middles).cumsum(0)
    above = total - below
    between = (weighted[-1] * below / total - weighted) ** 2 / (below * above).clamp(min=1)
    best = (between[:-1] == between[:-1].max()).nonzero().double().mean()  # the middle of a gap
    return low + (float(best) + 1) * (high - low) / BINS


def _thumbnail(source: Source, level: int) -> Tensor:
    """Read the whole image at a level, each band stretched to 0..1 by its own extremes [C, h, w]."""
    height, width = source.size_at(level)
    found = source.means(Window(0, 0, height, width), level)
    flat = found.flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    wide = (high.amax() - low.amin()).clamp(min=1e-12)  # one scale for all bands: colours stay
    return (found - low.amin()) / wide


def _digest(values: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16]


def wanted_cells(samples: Tensor, side: int) -> Tensor:
    """Return which cells [Gh, Gw] hold a wanted sample [h, w]; cells have `side` samples a side."""
    rows, columns = samples.shape
    padded = F.pad(samples[None, None].float(), (0, -columns % side, 0, -rows % side))
    return F.max_pool2d(padded, side)[0, 0] > 0


__all__ = ["AUTO", "NODATA", "Mask", "find_content", "open_mask", "otsu", "wanted_cells"]
