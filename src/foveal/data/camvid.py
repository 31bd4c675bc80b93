"""CamVid: road scenes from a moving car, 11 classes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from foveal.data.image import list_images
from foveal.data.pairs import Dataset, Pair, pair_by_stem
from foveal.storage.labels import VOID

COLOURS = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign_symbol": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
SEGNET_VOID = 11
LAYOUT = (
    "expected images/NAME.webp, labels/NAME.png and splits/SPLIT.txt,"
    " or the SegNet folders train/ trainannot/ val/ valannot/ test/ testannot/"
)


def open_camvid(root: str | Path, split: str = "test") -> Dataset:
    """Open CamVid in the layout with split lists or in the SegNet layout.

    Args:
        root: the folder of the data set.
        split: "train", "val" or "test" (367, 101 and 233 images of 480x360), or the name of any
            other file in splits/; names that start with "full_" read the 960x720 images in full/.

    Returns:
        The data set, with 11 classes.

    Raises:
        ValueError: the folder, the split or a file is missing.
    """
    root = Path(root)
    if (root / "splits").is_dir():
        pairs, remap = _listed_pairs(root, split), None
    elif (root / "trainannot").is_dir() or (root / "testannot").is_dir():
        pairs, remap = _segnet_pairs(root, split), _segnet_remap()
    else:
        raise ValueError(f"{root} is no CamVid folder: {LAYOUT}.")
    return Dataset(f"camvid/{split}", tuple(COLOURS), tuple(COLOURS.values()), pairs, remap)


def _listed_pairs(root: Path, split: str) -> tuple[Pair, ...]:
    """Pair the files that splits/SPLIT.txt names."""
    splits = {path.stem: path for path in sorted((root / "splits").glob("*.txt"))}
    if split not in splits:
        raise ValueError(f"{root} has no split {split!r}; it has {', '.join(splits)}.")
    base = root / "full" if split.startswith("full_") else root
    images = {path.stem: path for path in list_images(base / "images")}
    names = splits[split].read_text(encoding="utf-8").split()
    if not names:
        raise ValueError(f"{splits[split]} lists no image names; expected one on each line.")
    missing = [name for name in names if name not in images]
    if missing:
        raise ValueError(f"{base / 'images'} lacks {missing[0]}, which {splits[split]} lists: {LAYOUT}.")
    return tuple(Pair(images[name], base / "labels" / f"{name}.png") for name in names)


def _segnet_pairs(root: Path, split: str) -> tuple[Pair, ...]:
    if not (root / split).is_dir() or not (root / f"{split}annot").is_dir():
        raise ValueError(f"{root} has no folders {split}/ and {split}annot/: {LAYOUT}.")
    return pair_by_stem(root / split, root / f"{split}annot")


def _segnet_remap() -> Tensor:
    remap = torch.arange(256, dtype=torch.uint8)
    remap[SEGNET_VOID] = VOID
    return remap
