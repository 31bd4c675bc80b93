"""Cityscapes: street scenes from 50 cities, 2048x1024, 19 classes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from foveal.data.pairs import Dataset, Pair
from foveal.storage.labels import VOID

COLOURS = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
LAYOUT = (
    "expected leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png and gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png"
    " (or _labelTrainIds.png)"
)


def open_cityscapes(root: str | Path, split: str = "test") -> Dataset:
    """Open Cityscapes with its fine annotations.

    The 19 train ids are read where every image has them; otherwise the 34 label ids are mapped to
    them. All other ids are void. The published labels of "test" are void throughout.

    Args:
        root: the folder that holds leftImg8bit/ and gtFine/.
        split: "train", "val" or "test".

    Returns:
        The data set, with 19 classes.

    Raises:
        ValueError: the folder, the split or a label file is missing.
    """
    root = Path(root)
    images = sorted((root / "leftImg8bit" / split).glob("*/*_leftImg8bit.png"))
    if not images:
        raise ValueError(f"{root} has no Cityscapes images of split {split!r}: {LAYOUT}.")
    train_ids = [_label_path(root, image, "labelTrainIds") for image in images]
    labels, remap = train_ids, None
    if not all(path.is_file() for path in train_ids):
        labels, remap = [_label_path(root, image, "labelIds") for image in images], _train_ids()
    missing = [path for path in labels if not path.is_file()]
    if missing:
        raise ValueError(f"{missing[0]} does not exist ({len(missing)} of {len(labels)} missing): {LAYOUT}.")
    pairs = tuple(Pair(image, path) for image, path in zip(images, labels, strict=True))
    return Dataset(f"cityscapes/{split}", tuple(COLOURS), tuple(COLOURS.values()), pairs, remap)


def _label_path(root: Path, image: Path, kind: str) -> Path:
    name = image.name.replace("_leftImg8bit.png", f"_gtFine_{kind}.png")
    return root / "gtFine" / image.parent.parent.name / image.parent.name / name


def _train_ids() -> Tensor:
    """Make the table from label ids to train ids, uint8 [256]."""
    remap = torch.full((256,), VOID, dtype=torch.uint8)
    remap[list(LABEL_IDS)] = torch.arange(len(LABEL_IDS), dtype=torch.uint8)
    return remap
