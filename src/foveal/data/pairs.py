"""The data set type that every reader returns, and what the readers share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from foveal.data.image import ImageError, list_images, read_labels
from foveal.data.raster import COLOUR, ImageFormat, read_raster
from foveal.storage.labels import VOID
from foveal.storage.pictures import Palette
from foveal.storage.pictures import default_palette as default_palette  # where readers look for it


@dataclass(frozen=True)
class Pair:
    """The files of one image and its labels."""

    image: Path
    labels: Path


@dataclass(frozen=True)
class Dataset:
    """Images with labels, read from disk when they are asked for.

    Attributes:
        name: what reports call it, such as "camvid/test".
        classes: the K class names; a label is an index into them, or `VOID`.
        palette: K RGB colours, 0..255.
        pairs: the files.
        remap: uint8 [256], the label for each id found in the files; None takes the ids as they are.
        reading: how image files become images.
        unlabelled: image files without labels.
        counted: whether the classes were counted in the labels, because nobody names them.
        notes: what the user should know, a sentence each.
    """

    name: str
    classes: tuple[str, ...]
    palette: Palette
    pairs: tuple[Pair, ...]
    remap: Tensor | None = field(default=None, compare=False)
    reading: ImageFormat = COLOUR
    unlabelled: tuple[Path, ...] = ()
    counted: bool = False
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Read one image (float32 [C, H, W], 0..1) and its labels (uint8 [H, W]).

        Raises:
            ImageError: a file is unreadable, the two differ in size, or a label is not allowed.
            IndexError: there is no such pair.
        """
        pair = self.pairs[index]
        image, labels = read_raster(pair.image).image(self.reading), read_labels(pair.labels)
        if image.shape[1:] != labels.shape:
            raise ImageError(
                f"{pair.image} has {_size(image)} pixels but its labels {pair.labels} have {_size(labels)};"
                " the two must have one size."
            )
        if self.remap is not None:
            labels = torch.from_numpy(self.remap.numpy()[labels.numpy()])
        self._check_labels(pair, labels)
        return image, labels

    def name_of(self, index: int) -> str:
        """Name the image of one pair: its file name without the suffix."""
        return self.pairs[index].image.stem

    def named(self, names: Sequence[str]) -> Dataset:
        """Return the data set with other names of its classes; more classes only where they were counted.

        Raises:
            ValueError: There are fewer names than classes, or more than somebody has named before.
        """
        if len(names) < len(self.classes) or (len(names) > len(self.classes) and not self.counted):
            raise ValueError(
                f"{self.name} has {len(self.classes)} classes and {len(names)} names are given; give "
                f"{len(self.classes)}"
            )
        palette = default_palette(len(names)) if self.counted else self.palette
        return replace(self, classes=tuple(names), palette=palette)

    def _check_labels(self, pair: Pair, labels: Tensor) -> None:
        wrong = labels[(labels >= len(self.classes)) & (labels != VOID)]
        if wrong.numel():
            raise ImageError(
                f"{pair.labels} (labels of {pair.image}) holds class id {int(wrong[0])}; allowed are"
                f" 0 to {len(self.classes) - 1}, and {VOID} for void."
            )


def pair_by_stem(image_folder: Path, label_folder: Path) -> tuple[Pair, ...]:
    """Pair the images of one folder with the label files of the same stem in another.

    Raises:
        ImageError: a folder holds no images, or an image has no labels.
    """
    pairs, without = pair_some(image_folder, label_folder)
    if without:
        raise ImageError(_unlabelled(without, len(pairs) + len(without), label_folder))
    return pairs


def pair_some(image_folder: Path, label_folder: Path) -> tuple[tuple[Pair, ...], tuple[Path, ...]]:
    """Pair images with the label files of the same stem; return the images that have none, too.

    Raises:
        ImageError: a folder holds no images, or no image has labels.
    """
    labels = {path.stem: path for path in list_images(label_folder)}
    images = list_images(image_folder)
    without = tuple(path for path in images if path.stem not in labels)
    pairs = tuple(Pair(path, labels[path.stem]) for path in images if path.stem in labels)
    if not pairs:
        raise ImageError(_unlabelled(without, len(images), label_folder))
    return pairs, without


def _unlabelled(without: Sequence[Path], count: int, folder: Path) -> str:
    return (
        f"{without[0]} has no label file {without[0].stem}.png in {folder}"
        f" ({len(without)} of {count} images have none)."
    )


def _size(pixels: Tensor) -> str:
    return f"{pixels.shape[-1]} x {pixels.shape[-2]}"
