"""Reading and writing single images and label maps.

Every failure to read is an `ImageError` whose message starts with the path, so that a user who
points the library at ten thousand files learns which one is bad, and never sees half an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from foveal.data.decode import ImageError, decode, upright

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".gif")
BEHIND_TRANSPARENCY = 0.5
SHALLOW_GREY_STEPS = {b"\x02\x00": 85, b"\x04\x00": 17}


def read_image(path: str | Path) -> Tensor:
    """Read any common image file as RGB.

    The first frame of an animation is taken, the EXIF rotation is applied, and transparent pixels
    are blended over mid-grey: unlike black or white it is no strong evidence for any class.
    Integer files deeper than 8 bits are divided by 65535. Floating-point files are divided by the
    first of 1, 255 and 65535 that is not below their largest value.

    Args:
        path: the image file, of at most 200 million pixels.

    Returns:
        float32 [3, H, W], RGB, 0..1.

    Raises:
        ImageError: the file is missing, unreadable, no image, damaged, cut short or too large.
    """
    image = upright(decode(Path(path)))
    if image.mode == "F" or image.mode.startswith("I"):
        grey = torch.from_numpy(_unit_range(np.array(image, dtype=np.float32), image.mode, path))
        return grey.expand(3, -1, -1).contiguous()
    if not image.has_transparency_data:
        return _unit_planes(image.convert("RGB"))
    planes = _unit_planes(image.convert("RGBA"))
    return torch.lerp(torch.tensor(BEHIND_TRANSPARENCY), planes[:3], planes[3])


def read_labels(path: str | Path) -> Tensor:
    """Read a map of class ids: a palette or greyscale file whose pixel values are the ids.

    Args:
        path: the label file, 1 to 16 bits a pixel, without colour.

    Returns:
        uint8 [H, W], the ids as stored.

    Raises:
        ImageError: as for `read_image`, or the file holds colours, lossy JPEG data or ids above 255.
    """
    image = decode(Path(path))
    if image.format == "JPEG":
        raise ImageError(f"{path} is a JPEG, which changes class ids; save label maps as PNG.")
    if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
        raise ImageError(
            f"{path} holds {image.mode} pixels, not class ids; give a palette or greyscale PNG,"
            " or translate colours to ids with a colour map first."
        )
    ids = np.array(image) // _grey_step(Path(path), image)
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
    if Path(path).suffix.lower() not in IMAGE_SUFFIXES:
        raise ImageError(f"{path} has no known image suffix; give one of {' '.join(IMAGE_SUFFIXES)}.")
    levels = (image.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    _write(Image.fromarray(levels.permute(1, 2, 0).contiguous().cpu().numpy()), Path(path))


def _grey_step(path: Path, image: Image.Image) -> int:
    """Tell by how much Pillow stretched the ids: greyscale PNGs of 2 and 4 bits are spread over 0..255."""
    if image.format != "PNG":
        return 1
    with path.open("rb") as file:
        depth_and_colour_type = file.read(26)[24:]
    return SHALLOW_GREY_STEPS.get(depth_and_colour_type, 1)


def _unit_range(values: np.ndarray, mode: str, path: str | Path) -> np.ndarray:
    """Scale deep grey values [H, W] to 0..1."""
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 65535):
        raise ImageError(f"{path} holds grey values from {low:g} to {high:g}; rescale them to 0..65535.")
    scale = 65535 if mode != "F" else next(limit for limit in (1, 255, 65535) if high <= limit)
    return values / np.float32(scale)


def _unit_planes(image: Image.Image) -> Tensor:
    """Turn an 8-bit image of C channels into float32 [C, H, W], 0..1."""
    planes = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    return planes.to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def _candidates(path: Path) -> Iterator[Path]:
    """List what is in a folder or fits a pattern; an existing folder is never taken for a pattern."""
    if path.is_dir():
        return path.iterdir()
    if not any(mark in str(path) for mark in "*?["):
        raise ImageError(f"{path} does not exist; give a folder, an image file or a pattern like 'a/*.png'.")
    return Path(path.anchor or ".").glob(str(path.relative_to(path.anchor)))


def _write(image: Image.Image, path: Path) -> None:
    """Encode in memory first, so that a failure leaves no half-written file."""
    buffer = BytesIO()
    try:
        image.save(buffer, format=Image.registered_extensions()[path.suffix.lower()], quality=95)
        path.write_bytes(buffer.getvalue())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        hint = "" if path.parent.is_dir() else f"; make the folder {path.parent} first"
        raise OSError(f"{path} cannot be written ({reason}){hint}.") from None
