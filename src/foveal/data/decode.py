"""Decoding image files of any kind, with one clear sentence for each way in which that can fail."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 200_000_000

_bomb_limit_lock = threading.Lock()

# What Pillow warns of is refused here in a sentence, or concerns a block that pixels do not depend on. The
# filter holds for the process: one that comes and goes is not safe among threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


class ImageError(ValueError):
    """A file that is no readable image; the message starts with its path."""


def decode(path: Path) -> Image.Image:
    """Open an image file and decode its first frame completely.

    Args:
        path: the file, of any format that Pillow knows and at most `MAX_PIXELS` pixels.

    Returns:
        The image with all its pixels in memory and the file closed.

    Raises:
        ImageError: the file is missing, unreadable, no image, damaged, cut short or too large.
    """
    try:
        check_file(path)
        with _open(path) as image:
            _check_pixel_count(path, image)
            if image.format != "PNG":
                image.load()
                return image
            image.verify()  # Pillow checks the checksums of a PNG here only, and then wants it opened anew
        with _open(path) as image:
            image.load()
            return image
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{path} is no image, or is cut short: its content fits no known format.") from None
    except PermissionError:
        raise ImageError(f"{path} may not be read (permission denied).") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error and more
        raise ImageError(f"{path} is damaged or cut short ({error}).") from None


def upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF rotation; a damaged EXIF block is no reason to refuse intact pixels."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # as many types as in decode
        return image


def check_file(path: Path) -> None:
    """Refuse what is no file with something in it."""
    if path.is_dir():
        raise ImageError(f"{path} is a folder, not an image file.")
    if not path.exists():
        raise ImageError(f"{path} does not exist; give the name of an image file.")
    if not path.is_file():
        raise ImageError(f"{path} is no regular file.")
    if path.stat().st_size == 0:
        raise ImageError(f"{path} is empty (0 bytes).")


def _check_pixel_count(path: Path, image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(
            f"{path} has {image.width} x {image.height} pixels, more than the allowed"
            f" {MAX_PIXELS // 1_000_000} million; cut it into smaller images."
        )


def _open(path: Path) -> Image.Image:
    """Read the header only."""
    with _without_bomb_limit():
        return Image.open(path)


@contextmanager
def _without_bomb_limit() -> Iterator[None]:
    """Lift Pillow's process-wide limit, which is below ours, meanwhile."""
    with _bomb_limit_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit
