"""Opening a data set by its name: `open_dataset("camvid:PATH", "val")`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from foveal.data.camvid import open_camvid
from foveal.data.cityscapes import open_cityscapes
from foveal.data.folder import open_folder
from foveal.data.mapillary import open_mapillary
from foveal.data.pairs import Dataset, Pair, default_palette
from foveal.data.raster import COLOUR, ImageFormat
from foveal.storage.given import need
from foveal.storage.names import suggestion

__all__ = ["DATASETS", "Dataset", "Pair", "default_palette", "open_dataset"]

DATASETS: dict[str, Callable[[str | Path, str], Dataset]] = {
    "camvid": open_camvid,
    "cityscapes": open_cityscapes,
    "mapillary": open_mapillary,
    "folder": open_folder,
}


def open_dataset(
    spec: str, split: str = "test", reading: ImageFormat = COLOUR, names: Sequence[str] = ()
) -> Dataset:
    """Open a data set on disk.

    Args:
        spec: "KIND:PATH", where KIND is a key of `DATASETS` and PATH the folder of the data set.
        split: which part of it, such as "train", "val" or "test"; "train+val" joins two.
        reading: how image files become images.
        names: other names of its classes.

    Returns:
        The data set; its files are read when they are asked for.

    Raises:
        ValueError: the kind is unknown, the path or the split is missing, or the names do not fit.
    """
    need(spec, str, "spec", "KIND:PATH, such as camvid:data/camvid")
    kind, _, path = spec.partition(":")
    if kind not in DATASETS:
        raise ValueError(
            f"unknown data set kind {kind!r} in {spec!r}; {suggestion(kind, DATASETS)}give KIND:PATH with "
            f"KIND one of {', '.join(DATASETS)}"
        )
    root = Path(path).expanduser()
    if not path or not root.is_dir():
        raise ValueError(f"{spec!r} names no folder: {path or '(empty)'} does not exist; give {kind}:PATH.")
    parts = [DATASETS[kind](root, part) for part in split.split("+")]
    found = replace(parts[0], reading=reading)
    if len(parts) > 1:
        found = replace(
            found,
            name=f"{parts[0].name.split('/')[0]}/{split}",
            pairs=tuple(pair for part in parts for pair in part.pairs),
            unlabelled=tuple(path for part in parts for path in part.unlabelled),
            notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        )
    return found.named(names) if names else found
