"""Image files of any bands and bits: what is in them, what is missing, and as an image in 0..1."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from foveal.data.decode import MAX_PIXELS, ImageError, check_file, decode, upright

BEHIND_TRANSPARENCY = 0.5
GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue where a network takes one channel."""
DEEP = 65535
MOST_BANDS = 64
"""More bands than this are rows of an array whose bands come first."""
NODATA_TAG, ALPHA = "GDAL_NODATA", (1, 2)
"""TIFF tag of the value that means nothing, and the kinds of extra samples that are transparency."""

# What NumPy and Python's parser say about the header of an array, beside our sentence or the array itself. As
# in `decode`, the filters hold for the process; these are of this module, and of text without a file.
warnings.filterwarnings("ignore", "Reading `.npy`", UserWarning, __name__.replace(".", r"\."))
warnings.filterwarnings("ignore", category=SyntaxWarning, module="<unknown>")
logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what goes wrong is said in our own sentence

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ImageFormat:
    """How image files become what a network takes.

    Attributes:
        channels: Channels of the image.
        value_range: Values of a file that become 0 and 1; those of the kind of file if None.
    """

    channels: int = 3
    value_range: tuple[float, float] | None = None


COLOUR = ImageFormat()
"""Images in red, green and blue."""


@dataclass(frozen=True)
class Raster:
    """The content of an image file.

    Attributes:
        path: The file.
        values: Bands as the file has them [H, W, B], without transparency.
        alpha: Transparency [H, W] of the same type as the values, its largest value opaque; None if there
            is none.
        nodata: Value that means nothing, if the file declares one; NaN always means nothing, and a pixel with
            a NaN in any band is none.
    """

    path: Path
    values: Array
    alpha: Array | None = None
    nodata: float | None = None

    def image(self, wanted: ImageFormat = COLOUR) -> Tensor:
        """Return the image [C, H, W], float32 in 0..1; what means nothing is 0.

        Bytes are divided by 255, deeper whole numbers by 65535; floats must lie in 0..1. A range that is
        given comes before that, and values beyond it become its ends. One band serves three channels, and
        three bands one channel, by their luminance. Transparent pixels are blended over mid-grey, unless the
        network takes a channel more than there are colours: that is the transparency.

        Raises:
            ImageError: The values are beyond 0..1 and no range is given, or the bands do not fit.
        """
        values, alpha = self.values, self.alpha
        if alpha is not None and values.shape[2] + 1 == wanted.channels:
            values, alpha = np.concatenate([values, alpha[:, :, None]], 2), None
        planes = self._planes(self._unit(values, wanted.value_range), wanted.channels)
        if alpha is None:
            return planes
        opaque = torch.from_numpy(alpha.astype(np.float32) / _largest(alpha))
        return torch.lerp(torch.tensor(BEHIND_TRANSPARENCY), planes, opaque)

    def wanted(self) -> Tensor:
        """Return which pixels mean something [H, W], bool.

        Those are all but the ones with the declared value in every band, or NaN in any; without either, all
        that are not fully transparent; without transparency, all that are not 0 in every band.
        """
        missing = self._missing()
        if self.nodata is None and not missing.any():
            missing = self.alpha[:, :, None] == 0 if self.alpha is not None else self.values == 0
        return torch.from_numpy(~missing.all(2)) & self.numbers()

    def numbers(self) -> Tensor:
        """Return which pixels have a number in every band [H, W], bool: NaN is none."""
        if self.values.dtype.kind != "f":
            return torch.ones(self.values.shape[:2], dtype=torch.bool)
        return torch.from_numpy(~np.isnan(self.values).any(2))

    def given(self) -> Tensor:
        """Return which pixels are not 0 [H, W], bool, and not transparent: those that a mask wants."""
        chosen = (self.values != 0).any(2) & ~np.isnan(self.values.astype(np.float32)).any(2)
        return torch.from_numpy(chosen if self.alpha is None else chosen & (self.alpha > 0))

    def _missing(self) -> Array:
        """Mark the values that mean nothing [H, W, B]."""
        missing = (
            np.isnan(self.values) if self.values.dtype.kind == "f" else np.zeros(self.values.shape, bool)
        )
        return missing if self.nodata is None else missing | (self.values == self.nodata)

    def _unit(self, values: Array, given: tuple[float, float] | None) -> Array:
        """Scale values [H, W, B] to 0..1."""
        if values.dtype == np.uint8 and given is None:
            return values.astype(np.float32) / np.float32(255)
        missing = self._missing()
        if missing.shape != values.shape:  # transparency is among them
            missing = np.concatenate([missing, np.zeros((*values.shape[:2], 1), bool)], 2)
        known = values[~missing]
        least, most = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
        low, high = given or (0.0, 1.0 if values.dtype.kind == "f" else float(DEEP))
        if given is None and not low <= least <= most <= high:
            raise ImageError(
                f"{self.path} holds values from {least:g} to {most:g}; give the values that become 0 and 1 "
                f"once, for all images: --range {least:g}:{most:g}, or rescale them to {low:g}..{high:g}."
            )
        unit = np.clip((values.astype(np.float32) - np.float32(low)) / np.float32(high - low), 0, 1)
        return np.where(missing, np.float32(0), unit)

    def _planes(self, unit: Array, channels: int) -> Tensor:
        """Bring bands [H, W, B] in 0..1 to channels [C, H, W]."""
        planes = torch.from_numpy(unit).permute(2, 0, 1).contiguous()
        bands = len(planes)
        if bands == channels:
            return planes
        if bands == 1 and channels == 3:
            return planes.expand(3, -1, -1).contiguous()
        if bands == 3 and channels == 1:
            return (planes * torch.tensor(GREY).view(3, 1, 1)).sum(0, keepdim=True)
        raise ImageError(
            f"{self.path} has {bands} band{'s' if bands > 1 else ''} and the network takes {channels}; "
            f"give files of {channels} bands, or a network of {bands}."
        )


def read_raster(path: str | Path) -> Raster:
    """Read an image file of any kind: what Pillow knows, TIFF of any bands and bits, NumPy's .npy.

    The first frame of an animation and the first page of a TIFF are taken, and the EXIF rotation is applied.
    An array has the shape [H, W] or [H, W, B].

    Raises:
        ImageError: The file is missing, unreadable, no image, damaged, cut short or too large.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        return _checked(Raster(path, _load_array(path)))
    nodata = None
    if path.suffix.lower() in (".tif", ".tiff"):
        found, nodata = _read_tiff(path)
        if found is not None:
            return _checked(found)
    return replace(_of_pillow(path, upright(decode(path))), nodata=nodata)


def take_image(image: Image.Image | Array) -> Raster:
    """Take an image that is in memory, as `read_raster` takes a file that holds it.

    Args:
        image: Image of Pillow, or array [H, W] or [H, W, B].

    Raises:
        ImageError: It is damaged, too large, or no image.
    """
    name = Path("the image")
    if isinstance(image, Image.Image):
        _check_pixels(name, *image.size)
        try:
            image.load()
        except Exception as error:  # as many types as in decode
            raise ImageError(f"{name} is damaged or cut short ({error}).") from None
        return _of_pillow(name, upright(image))
    return _checked(Raster(name, _with_bands(name, image)))


def _of_pillow(path: Path, image: Image.Image) -> Raster:
    """Take what Pillow decoded."""
    if image.mode == "F" or image.mode.startswith("I"):
        return Raster(path, np.array(image)[:, :, None])
    if image.has_transparency_data:
        kind = "LA" if image.mode in ("L", "LA") else "RGBA"
        values = np.array(image.convert(kind))
        return Raster(path, values[:, :, :-1], values[:, :, -1])
    values = np.array(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    return Raster(path, values.reshape(*values.shape[:2], -1))


def _read_tiff(path: Path) -> tuple[Raster | None, float | None]:
    """Read a TIFF that Pillow would not read whole, and the value that means nothing in any TIFF."""
    import tifffile

    check_file(path)
    try:
        with tifffile.TiffFile(path) as file:
            page: Any = file.pages[0]
            nodata = _nodata(page)
            if _is_plain(page):
                return None, nodata
            _check_pixels(path, page.imagewidth, page.imagelength)
            values = page.asarray()
            separate = page.axes.startswith("S")
            extra = tuple(int(kind) for kind in page.extrasamples)
    except ImageError:
        raise
    except tifffile.TiffFileError:  # Pillow says what is wrong with it
        return None, None
    except Exception as error:  # codecs raise anything
        line = " ".join(str(error).split())[:200]
        raise ImageError(
            f"{path} is damaged, cut short, or of a kind that cannot be read ({line})."
        ) from None
    values = np.moveaxis(values, 0, -1) if separate and values.ndim == 3 else values
    said = page.imagelength, page.imagewidth
    if values.shape[:2] != said:
        raise ImageError(
            f"{path} is damaged or no picture: it says {said[0]} rows of {said[1]} pixels, and its values "
            f"are {list(values.shape)}."
        )
    values = values.reshape(*said, -1)
    if extra and extra[-1] in ALPHA:
        return Raster(path, values[:, :, :-1], values[:, :, -1], nodata), nodata
    return Raster(path, values, None, nodata), nodata


def _is_plain(page: Any) -> bool:
    """Whether Pillow reads a page of a TIFF whole: it knows compressions that need a package otherwise."""
    if page.samplesperpixel == 1:
        return page.bitspersample <= 8 or str(page.dtype) in ("uint16", "int32", "float32")
    extra = tuple(int(kind) for kind in page.extrasamples)
    colours = page.samplesperpixel - len(extra)
    fits = colours == 3 or (colours == 4 and page.photometric == page.photometric.SEPARATED)
    transparent = len(extra) == 1 and extra[0] in ALPHA and colours in (1, 3)
    return page.dtype == np.uint8 and ((fits and not extra) or transparent)


def _nodata(page: Any) -> float | None:
    """Return the value that a page of a TIFF declares to mean nothing."""
    tag = page.tags.get(NODATA_TAG)
    try:
        value = float(str(tag.value).strip("\0 ")) if tag is not None else None
    except ValueError:
        return None
    return None if value is not None and np.isnan(value) else value


def _load_array(path: Path) -> Array:
    """Load an array [H, W, B]."""
    check_file(path)
    try:
        values = np.load(path, allow_pickle=False)
    except Exception as error:  # whatever a damaged file makes of NumPy
        raise ImageError(f"{path} is no array, or damaged ({' '.join(str(error).split())[:200]}).") from None
    return _with_bands(path, values)


def _with_bands(path: Path, values: Array) -> Array:
    """Bring an array to [H, W, B]."""
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim != 3 or values.shape[2] > MOST_BANDS or values.size == 0:
        raise ImageError(
            f"{path} holds an array {list(values.shape)}; give [H, W], or [H, W, bands] with at most "
            f"{MOST_BANDS} bands."
        )
    _check_pixels(path, values.shape[1], values.shape[0])
    return values


def _checked(raster: Raster) -> Raster:
    """Refuse numbers that are no grey values.

    Raises:
        ImageError: They are complex, or text, or the like.
    """
    kind = raster.values.dtype
    if kind.kind == "b":
        return Raster(raster.path, raster.values.astype(np.uint8) * 255, raster.alpha, raster.nodata)
    if kind.kind not in "uif":
        raise ImageError(f"{raster.path} holds numbers of type {kind}; give whole numbers or floats.")
    return raster


def _check_pixels(path: Path, width: int, height: int) -> None:
    """Refuse what is too large."""
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{path} has {width} x {height} pixels, more than the allowed {MAX_PIXELS // 1_000_000} million;"
            " cut it into smaller images."
        )


def _largest(alpha: Array) -> np.float32:
    """Return what opaque is."""
    return np.float32(1.0 if alpha.dtype.kind == "f" else np.iinfo(alpha.dtype).max)
