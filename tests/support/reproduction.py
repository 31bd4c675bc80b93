"""What the engine of a study needs from the layers above it, without training and without drawing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from studies.segblocks.networks import Networks
from studies.segblocks.study import Study, Tools

Train = Callable[[Path, Path], Path]


def refuse(recipe: Path, folder: Path) -> Path:
    """Stand for training where nothing is to be trained."""
    raise AssertionError(f"nothing is to be trained, but {folder} is")


def tools(train: Train = refuse) -> Tools:
    """Make tools that leave images as they are."""
    return Tools(
        train, lambda image, labels, palette: image, lambda *a: Image.new("RGB", (8, 8)), "foveal test"
    )


def networks(study: Study, train: Train = refuse) -> Networks:
    """Make the networks of a study."""
    return Networks(study, tools(train))
