"""Images as people have them: file names, images of Pillow and arrays of NumPy beside tensors."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from foveal.data.raster import ImageFormat, read_raster, take_image
from foveal.methods.base import check_tensor

if TYPE_CHECKING:
    from PIL import Image
    from typing_extensions import TypeIs

    OneImage = Tensor | np.ndarray[Any, Any] | Image.Image | str | PathLike[str]
    OneMask = OneImage
    Images = OneImage | Sequence[OneImage]


def is_one(images: Images) -> TypeIs[OneImage]:
    """Whether something is one image or batch, or what is no image at all, and not several images."""
    return isinstance(images, str | bytes) or not isinstance(images, Sequence)


def read(image: Any, channels: int) -> Any:
    """Return what holds an image as a tensor [C, H, W] in 0..1; a tensor, and what holds none, as it is.

    Files are read as by `foveal.read_image`; images of Pillow, and arrays [H, W] or [H, W, bands], as if they
    were such a file: uint8 is divided by 255, uint16 by 65535, floats lie in 0..1.

    Args:
        image: File name, image of Pillow, array, tensor, or anything else.
        channels: Channels that are wanted; grey serves three, and RGB one.

    Raises:
        ImageError: The file cannot be read, or its bands or values do not fit.
        ValueError: The bands of an array come first, or its values do not lie in 0..1.
    """
    wanted = ImageFormat(channels)
    if isinstance(image, str | PathLike):
        return read_raster(str(image)).image(wanted)
    if isinstance(image, np.ndarray):
        _check(image, channels)
        return take_image(image).image(wanted)
    pillow = sys.modules.get("PIL.Image")
    return take_image(image).image(wanted) if pillow and isinstance(image, pillow.Image) else image


def read_wanted(mask: Any) -> Any:
    """Return what says which places are wanted as a bool tensor; a tensor, and what says none, as it is.

    Args:
        mask: File name, image of Pillow or array [H, W], not 0 (and not transparent) where wanted; array of
            bool of any shape; tensor, or anything else.

    Raises:
        ImageError: The file cannot be read.
    """
    if isinstance(mask, np.ndarray):
        return torch.from_numpy(mask if mask.dtype == np.bool_ else mask != 0)
    if isinstance(mask, str | PathLike):
        return read_raster(str(mask)).given()
    pillow = sys.modules.get("PIL.Image")
    return take_image(mask).given() if pillow and isinstance(mask, pillow.Image) else mask


def batch_of(image: Any, channels: int) -> Tensor:
    """Return an image or a batch as a tensor [N, C, H, W].

    Raises:
        ImageError: A file cannot be read, or its bands or values do not fit.
        ValueError: It is no image, or one of other channels; the message says what to give.
    """
    image = read(image, channels)
    if not isinstance(image, Tensor):
        given = f"a {type(image).__name__}"
    else:
        check_tensor(image)
        batch = image[None] if image.ndim == 3 else image
        if batch.ndim == 4 and batch.shape[1] == channels and batch.numel():
            return batch
        given = f"{image.dtype} {list(image.shape)}"
        if image.ndim in (3, 4) and image.shape[-1] == channels:
            given += ", its channels last"
    raise ValueError(
        f"image is {given}; give a tensor [N, {channels}, H, W] or [{channels}, H, W] with at least "
        f"one pixel, floats in 0..1 or bytes, an array [H, W, {channels}], an image of Pillow, the name of a "
        "file, or a list of images"
    )


def _check(image: np.ndarray[Any, Any], channels: int) -> None:
    """Refuse an array that is meant otherwise, with a sentence that says what to do.

    Raises:
        ValueError: It has four dimensions, its bands come first, or it holds other numbers.
    """
    shape = list(image.shape)
    if image.ndim == 4 or (image.ndim == 3 and shape[0] == channels != shape[2]):
        raise ValueError(
            f"image is an array {shape}; give an array [H, W, {channels}], a list of them, or a tensor "
            f"[N, {channels}, H, W], such as torch.from_numpy(array)"
        )
    if image.dtype in (np.uint8, np.uint16):
        return
    given = f"image is an array of {image.dtype}"
    if image.dtype.kind == "f" and image.size:
        least, most = float(image.min()), float(image.max())
        if 0 <= least and most <= 1:
            return
        given += f" from {least:g} to {most:g}"
    raise ValueError(f"{given}; give uint8, uint16, or floats in 0..1 (divide 0..255 by 255)")
