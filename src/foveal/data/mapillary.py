"""Mapillary Vistas v1.2: street scenes from all over the world, 65 classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from foveal.data.pairs import Dataset, Palette, default_palette, pair_by_stem
from foveal.storage.labels import VOID
from foveal.storage.reading import read_json
from foveal.storage.schema import Colour, Name, read_as

CLASS_COUNT = 65
UNLABELLED = 65
SPLIT_FOLDERS = {"train": "training", "val": "validation"}
CONFIG_NAMES = ("config_v1.2.json", "config.json")
LAYOUT = (
    "expected training/ and validation/, each with images/NAME.jpg and labels/NAME.png"
    " (in release 2.0: v1.2/labels/NAME.png)"
)


@dataclass(frozen=True)
class _Label:
    name: Name
    color: Colour
    readable: Name | None = None


@dataclass(frozen=True)
class _Config:
    labels: tuple[_Label, ...]


def open_mapillary(root: str | Path, split: str = "test") -> Dataset:
    """Open Mapillary Vistas with the labels of version 1.2.

    Args:
        root: the folder that holds training/ and validation/, and the config.json of the data set
            for names and colours; without it the names are "class_00", "class_01", ...
        split: "train" or "val", or "training" or "validation"; the test images have no labels.

    Returns:
        The data set, with 65 classes.

    Raises:
        ValueError: the folder, the split, a label file or a usable config.json is missing.
    """
    root = Path(root)
    base = root / SPLIT_FOLDERS.get(split, split)
    choices = [folder for folder in (base / "v1.2" / "labels", base / "labels") if folder.is_dir()]
    if not choices or not (base / "images").is_dir():
        raise ValueError(f"{root} has no labelled Mapillary Vistas images of split {split!r}: {LAYOUT}.")
    names, palette = _names_and_palette(root)
    return Dataset(
        f"mapillary/{split}", names, palette, pair_by_stem(base / "images", choices[0]), _void_remap()
    )


def _names_and_palette(root: Path) -> tuple[tuple[str, ...], Palette]:
    """Read the names and colours of the 65 classes from the data set's config file, or invent them."""
    configs = [root / name for name in CONFIG_NAMES if (root / name).is_file()]
    if not configs:
        return tuple(f"class_{index:02d}" for index in range(CLASS_COUNT)), default_palette(CLASS_COUNT)
    found = read_json(configs[0], "list of classes")
    try:
        entries = read_as(_Config, found, configs[0], "list of classes").labels
    except ValueError:
        raise ValueError(
            f'{configs[0]} has no "labels" with "name" and "color" of three bytes each.'
        ) from None
    names = tuple(entry.name if entry.readable is None else entry.readable for entry in entries)
    palette = tuple(entry.color for entry in entries)
    if len(names) != CLASS_COUNT + 1:
        raise ValueError(f"{configs[0]} has {len(names)} labels; version 1.2 of the data set has 66.")
    return names[:CLASS_COUNT], palette[:CLASS_COUNT]


def _void_remap() -> Tensor:
    remap = torch.arange(256, dtype=torch.uint8)
    remap[UNLABELLED] = VOID
    return remap
