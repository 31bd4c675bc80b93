"""Images from a folder or a data set, without labels or beside them, read when they are used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import overload

from torch import Tensor

from foveal.data.dataset import DATASETS, open_dataset
from foveal.data.image import list_images
from foveal.data.pairs import Dataset
from foveal.data.raster import COLOUR, ImageFormat, read_raster


class ImageFiles(Sequence[Tensor]):
    """Image files that give the image [C, H, W] in 0..1 when they are indexed."""

    def __init__(self, files: Sequence[Path], reading: ImageFormat = COLOUR) -> None:
        self.files, self.reading = files, reading

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> ImageFiles: ...

    def __getitem__(self, index: int | slice) -> Tensor | ImageFiles:
        """Read an image, or list some of them without reading them."""
        if isinstance(index, slice):
            return ImageFiles(self.files[index], self.reading)
        return read_raster(self.files[index]).image(self.reading)


class Column(Sequence[Tensor]):
    """The images [C, H, W] of some pairs of a data set, or their labels [H, W]."""

    def __init__(self, data: Dataset, indices: Sequence[int], column: int) -> None:
        self.data, self.indices, self.column = data, indices, column

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> Column: ...

    def __getitem__(self, index: int | slice) -> Tensor | Column:
        """Read an image or its labels, or list some of them without reading them."""
        if isinstance(index, slice):
            return Column(self.data, self.indices[index], self.column)
        return self.data[self.indices[index]][self.column]


def columns(data: Dataset, limit: int) -> tuple[Column, Column]:
    """List images and labels of at most `limit` pairs, evenly spaced."""
    count = min(limit, len(data))
    chosen = [k * len(data) // count for k in range(count)]
    return Column(data, chosen, 0), Column(data, chosen, 1)


def open_images(source: str, split: str, limit: int, reading: ImageFormat = COLOUR) -> ImageFiles:
    """List at most `limit` images, evenly spaced.

    Args:
        source: A folder, an image, or a data set as KIND:PATH, whose labels are not read.
        split: Split of a data set.
        limit: Largest number of images.
        reading: How image files become images.

    Raises:
        ValueError: There is no such data set or split, or no image.
    """
    kind, _, path = source.partition(":")
    if kind == "folder":  # opening it as a data set would read the masks to count their classes
        folder = Path(path).expanduser() / "images"
        files = list_images(folder / split if (folder / split).is_dir() else folder)
    elif kind in DATASETS:
        files = [pair.image for pair in open_dataset(source, split).pairs]
    else:
        files = list_images(source)
    count = min(limit, len(files))
    return ImageFiles([files[k * len(files) // count] for k in range(count)], reading)
