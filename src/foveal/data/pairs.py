"""The data set type that every reader returns, and what the readers share."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foveal.data.image import ImageError, list_images, read_image, read_labels
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
    """

    name: str
    classes: tuple[str, ...]
    palette: Palette
    pairs: tuple[Pair, ...]
    remap: Tensor | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Read one image (float32 [3, H, W], 0..1) and its labels (uint8 [H, W]).

        Raises:
            ImageError: a file is unreadable, the two differ in size, or a label is not allowed.
            IndexError: there is no such pair.
        """
        pair = self.pairs[index]
        image, labels = read_image(pair.image), read_labels(pair.labels)
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
    labels = {path.stem: path for path in list_images(label_folder)}
    images = list_images(image_folder)
    missing = [path for path in images if path.stem not in labels]
    if missing:
        raise ImageError(
            f"{missing[0]} has no label file {missing[0].stem}.png in {label_folder}"
            f" ({len(missing)} of {len(images)} images have none)."
        )
    return tuple(Pair(path, labels[path.stem]) for path in images)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: the file cannot be read or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}).") from None


def _size(pixels: Tensor) -> str:
    return f"{pixels.shape[-1]} x {pixels.shape[-2]}"
