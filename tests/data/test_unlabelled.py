from __future__ import annotations

from pathlib import Path

import pytest
import torch

from foveal.data.image import read_image
from foveal.data.image_files import open_images
from samples import error_of, write_folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path, 5)


def test_images_of_a_folder_are_read_when_they_are_asked_for(root: Path) -> None:
    found = open_images(str(root / "images"), "train", 10)
    assert len(found) == 5
    assert torch.equal(found[1], read_image(root / "images" / "1.png"))
    (root / "images" / "2.png").unlink()
    assert [tuple(image.shape) for image in found[3:]] == [(3, 64, 96)] * 2


def test_fewer_images_are_evenly_spaced(root: Path) -> None:
    names = [file.name for file in open_images(str(root / "images"), "train", 2).files]
    assert names == ["0.png", "2.png"]


def test_a_data_set_gives_its_images_without_reading_masks(root: Path) -> None:
    for mask in (root / "masks").glob("*"):
        mask.write_bytes(b"damaged")
    assert len(open_images(f"folder:{root}", "train", 10)) == 5


def test_no_images_are_refused(tmp_path: Path) -> None:
    assert str(tmp_path / "nothing") in error_of(lambda: open_images(str(tmp_path / "nothing"), "train", 1))
