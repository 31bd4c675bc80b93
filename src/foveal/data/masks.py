"""Masks of what is wanted of images: one file for all, a folder with one each, or all that is no nodata."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from foveal.data.decode import ImageError
from foveal.data.image import list_images
from foveal.data.raster import Raster, read_raster

NODATA = "nodata"
"""Word for all pixels that mean something in the image file itself."""


@dataclass(frozen=True)
class Masks:
    """Where the wanted pixels of images come from.

    Attributes:
        name: What the user gave.
        files: Masks by the stem of the image; None if the image file itself says it.
        shared: Mask of all images; None if every image has its own.
    """

    name: str
    files: dict[str, Path] | None = None
    shared: Path | None = None

    def of(self, image: Raster) -> Tensor:
        """Return the wanted pixels [H, W], bool, of an image.

        Raises:
            ImageError: It has no mask, or one of another size.
        """
        if self.files is None and self.shared is None:
            return image.wanted()
        path = self.shared or (self.files or {}).get(image.path.stem)
        if path is None:
            raise ImageError(
                f"{image.path} has no mask in {self.name}; give one with the name {image.path.stem}."
            )
        mask = read_raster(path)
        if mask.values.shape[:2] != image.values.shape[:2]:
            raise ImageError(
                f"mask {path} has {_size(mask)} px and {image.path} {_size(image)}; give equal sizes."
            )
        return mask.given()


def open_masks(name: str) -> Masks:
    """Find the masks that a user names: a file, a folder, or the word nodata.

    Raises:
        ImageError: There is no such file, or the folder has no images.
    """
    path = Path(name)
    if path.is_dir():
        return Masks(name, {file.stem: file for file in list_images(path)})
    if path.is_file():
        return Masks(name, None, path)
    if name == NODATA:
        return Masks(name)
    raise ImageError(
        f"--mask {name} does not exist; give an image, a folder with one per image, or {NODATA}."
    )


def read_wanted(name: str, image: Path | None, size: tuple[int, int]) -> Tensor:
    """Read the wanted pixels [H, W], bool, of one image.

    Args:
        name: What the user gave.
        image: File of the image; None for one that was generated.
        size: Its height and width [px].

    Raises:
        ImageError: There is no such mask, or none for the image, or it has another size or wants nothing.
    """
    masks = open_masks(name)
    if image is None and masks.shared is None:
        what = "the image file" if masks.files is None else "the name of the image file"
        raise ImageError(f"--mask {name} goes by {what}, and a street is generated; give --image FILE.")
    wanted = masks.of(read_raster(image)) if image is not None else read_raster(masks.shared or name).given()
    if tuple(wanted.shape) != size:
        sides = f"{wanted.shape[0]}x{wanted.shape[1]}"
        raise ImageError(f"--mask {name} has {sides} px and the image {size[0]}x{size[1]}; give equal sizes.")
    if not bool(wanted.any()):
        raise ImageError(f"--mask {name} wants no pixel; give one that is not 0 everywhere.")
    return wanted


def _size(raster: Raster) -> str:
    return f"{raster.values.shape[1]} x {raster.values.shape[0]}"
