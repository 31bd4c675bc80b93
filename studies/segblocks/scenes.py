"""Generated street scenes as a folder of images and masks, so that a study runs without any data set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from foveal.data.synthetic import CLASSES, PALETTE, StreetScenes
from foveal.storage.atomic import replacing, write_atomically


def write_scenes(folder: Path, counts: Mapping[str, int], size: tuple[int, int]) -> None:
    """Write splits of scenes of a size [px], every split of other seeds; those that are there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (split, count) in enumerate(counts.items()):
        scenes = StreetScenes(count, size, seed + 1)
        for index in range(count):
            image, masks = (folder / kind / split / f"{index:04d}.png" for kind in ("images", "masks"))
            if not masks.exists():
                picture, labels = scenes[index]
                _save((picture * 255).round().byte().permute(1, 2, 0), image)
                _save(labels, masks)
    write_atomically(folder / "classes.json", json.dumps({"classes": CLASSES, "palette": PALETTE}))


def _save(pixels: Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        Image.fromarray(np.ascontiguousarray(pixels.numpy())).save(part)
