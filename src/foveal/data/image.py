"""Reading and writing single images and label maps.

Every failure to read is an `ImageError` whose message starts with the path, so that a user who
points the library at ten thousand files learns which one is bad, and never sees half an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from foveal.data.decode import ImageError, decode
from foveal.data.raster import ImageFormat, read_raster
from foveal.storage.atomic import replacing
from foveal.storage.given import need_path

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".gif", ".npy")
SHALLOW_GREY_STEPS = {b"\x02\x00": 85, b"\x04\x00": 17}


def read_image(path: str | Path, channels: int = 3, value_range: tuple[float, float] | None = None) -> Tensor:
    """Read an image file: what Pillow knows, TIFF of any bands and bits, or NumPy's .npy of [H, W(, bands)].

    The first frame of an animation is taken, the EXIF rotation is applied, and transparent pixels
    are blended over mid-grey: unlike black or white it is no strong evidence for any class.
    Bytes are divided by 255, deeper whole numbers by 65535, and floats must lie in 0..1, unless the
    values that become 0 and 1 are given; what a file declares to mean nothing, and NaN, becomes 0.

    Args:
        path: the image file, of at most 200 million pixels.
        channels: channels that are wanted; grey serves three, and RGB one.
        value_range: values that become 0 and 1; values beyond become these.

    Returns:
        float32 [C, H, W], 0..1, RGB if there are three.

    Raises:
        ImageError: the file is missing, unreadable, no image, damaged, cut short or too large, its
            values need a range, or it has other bands.
    """
    need_path(path, "path")
    return read_raster(path).image(ImageFormat(channels, value_range))


def read_labels(path: str | Path) -> Tensor:
    """Read a map of class ids: a palette or greyscale file, or an array [H, W], whose values are the ids.

    Args:
        path: the label file, 1 to 16 bits a pixel, without colour; or .npy of whole numbers.

    Returns:
        uint8 [H, W], the ids as stored.

    Raises:
        ImageError: as for `read_image`, or the file holds colours, lossy JPEG data or ids above 255.
    """
    if Path(path).suffix.lower() == ".npy":
        return _as_ids(read_raster(path).values, path)
    image = decode(Path(path))
    if image.format == "JPEG":
        raise ImageError(f"{path} is a JPEG, which changes class ids; save label maps as PNG.")
    if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
        raise ImageError(
            f"{path} holds {image.mode} pixels, not class ids; give a palette or greyscale PNG,"
            " or translate colours to ids with a colour map first."
        )
    return _as_ids((np.array(image) // _grey_step(Path(path), image))[:, :, None], path)


def _as_ids(ids: np.ndarray, path: str | Path) -> Tensor:
    """Check class ids [H, W, 1]."""
    if ids.shape[2] != 1 or ids.dtype.kind == "f":
        raise ImageError(
            f"{path} holds {ids.dtype} of {ids.shape[2]} bands, not class ids; give whole numbers."
        )
    ids = ids[:, :, 0]
    if ids.min() < 0 or ids.max() > 255:
        raise ImageError(f"{path} holds ids from {ids.min()} to {ids.max()}; class ids must be 0 to 255.")
    return torch.from_numpy(ids.astype(np.uint8))


def list_images(path: str | Path) -> list[Path]:
    """List the image files that a folder, a single file or a glob pattern stands for.

    Args:
        path: a folder (not searched recursively), one file of any name, or a pattern like `a/*.png`.

    Returns:
        The files, sorted; in folders and patterns only those with a known image suffix.

    Raises:
        ImageError: nothing was found.
    """
    path = Path(path)
    try:
        if path.is_file():
            return [path]
        images = sorted(file for file in _candidates(path) if looks_like_image(file))
    except PermissionError:
        raise ImageError(f"{path} may not be read (permission denied).") from None
    if not images:
        raise ImageError(f"{path} has no image files; known suffixes are {' '.join(IMAGE_SUFFIXES)}.")
    return images


def looks_like_image(path: Path) -> bool:
    """Tell whether a path is a file, not hidden, with the suffix of an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def save_labels(labels: Tensor, path: str | Path, palette: Sequence[tuple[int, int, int]]) -> None:
    """Write a map of class ids as a palette PNG: ids stay exact and viewers show the colours.

    Args:
        labels: uint8 [H, W].
        path: the .png file to write; its folder must exist.
        palette: RGB 0..255 of id 0, 1, ...; ids beyond it, void among them, show as black.

    Raises:
        ImageError: the path does not end in .png.
        OSError: the file cannot be written.
        ValueError: the labels are not uint8 [H, W] or the palette is too long.
    """
    if labels.dtype != torch.uint8 or labels.ndim != 2:
        raise ValueError(f"labels must be uint8 [H, W], not {labels.dtype} {list(labels.shape)}.")
    if len(palette) > 256:
        raise ValueError(f"a palette PNG has at most 256 colours, not {len(palette)}.")
    if Path(path).suffix.lower() != ".png":
        raise ImageError(f"{path} does not end in .png, the one format that label maps are saved in.")
    image = Image.fromarray(labels.cpu().numpy())
    colours = [channel for colour in palette for channel in colour]
    image.putpalette(colours + [0] * (768 - len(colours)))
    _write(image, Path(path))


def save_image(image: Tensor, path: str | Path) -> None:
    """Write an image in the format that the suffix of the path names.

    Args:
        image: float [3, H, W], RGB, 0..1; values outside are clipped.
        path: the file to write; its folder must exist.

    Raises:
        ImageError: the suffix is not a known one.
        OSError: the file cannot be written.
        ValueError: the image is not floating-point [3, H, W].
    """
    if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
        raise ValueError(f"image must be floating-point [3, H, W], not {image.dtype} {list(image.shape)}.")
    if Path(path).suffix.lower() not in IMAGE_SUFFIXES[:-1]:
        raise ImageError(f"{path} has no known image suffix; give one of {' '.join(IMAGE_SUFFIXES[:-1])}.")
    levels = (image.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    _write(Image.fromarray(levels.permute(1, 2, 0).contiguous().cpu().numpy()), Path(path))


def _grey_step(path: Path, image: Image.Image) -> int:
    """Tell by how much Pillow stretched the ids: greyscale PNGs of 2 and 4 bits are spread over 0..255."""
    if image.format != "PNG":
        return 1
    with path.open("rb") as file:
        depth_and_colour_type = file.read(26)[24:]
    return SHALLOW_GREY_STEPS.get(depth_and_colour_type, 1)


def _candidates(path: Path) -> Iterator[Path]:
    """List what is in a folder or fits a pattern; an existing folder is never taken for a pattern."""
    if path.is_dir():
        return path.iterdir()
    if not any(mark in str(path) for mark in "*?["):
        raise ImageError(f"{path} does not exist; give a folder, an image file or a pattern like 'a/*.png'.")
    return Path(path.anchor or ".").glob(str(path.relative_to(path.anchor)))


def _write(image: Image.Image, path: Path) -> None:
    """Write in the format that the suffix names."""
    with replacing(path) as part:
        try:
            image.save(part, format=Image.registered_extensions()[path.suffix.lower()], quality=95)
        except ValueError as error:  # the format has no such images
            raise OSError(str(error)) from None
