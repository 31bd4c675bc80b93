from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from foveal.data.cityscapes import LABEL_IDS, open_cityscapes
from foveal.data.dataset import open_dataset

Writer = Callable[..., Path]


@pytest.fixture
def root(tmp_path: Path, write_image: Writer, write_labels: Writer) -> Path:
    for city in ("aachen", "bochum"):
        write_image(f"leftImg8bit/train/{city}/{city}_0_1_leftImg8bit.png")
        write_labels(f"gtFine/train/{city}/{city}_0_1_gtFine_labelIds.png", 7, 8, 33, 0, 29, 255)
    write_image("leftImg8bit/val/ulm/ulm_0_1_leftImg8bit.png")
    return tmp_path


def test_label_ids_become_train_ids(root: Path) -> None:
    data = open_dataset(f"cityscapes:{root}", "train")
    assert data.name == "cityscapes/train" and len(data) == 2
    assert data.name_of(0) == "aachen_0_1_leftImg8bit"
    assert data[0][1].tolist() == [[0, 1, 18], [255, 255, 255]]


def test_the_19_official_classes(root: Path) -> None:
    data = open_cityscapes(root, "train")
    assert len(data.classes) == len(data.palette) == len(LABEL_IDS) == 19
    assert data.classes[::6] == ("road", "traffic light", "rider", "bicycle")
    assert data.palette[13] == (0, 0, 142)


def test_train_ids_are_preferred_when_complete(root: Path, write_labels: Writer) -> None:
    write_labels("gtFine/train/aachen/aachen_0_1_gtFine_labelTrainIds.png", 0, 7, 18, 255, 255, 3)
    assert open_cityscapes(root, "train")[0][1].tolist() == [[0, 1, 18], [255, 255, 255]]
    write_labels("gtFine/train/bochum/bochum_0_1_gtFine_labelTrainIds.png", 0, 7, 18, 255, 255, 3)
    assert open_cityscapes(root, "train")[0][1].tolist() == [[0, 7, 18], [255, 255, 3]]


def test_missing_labels_are_named(root: Path) -> None:
    with pytest.raises(
        ValueError, match=r"ulm_0_1_gtFine_labelIds\.png does not exist \(1 of 1 missing\): expec"
    ):
        open_cityscapes(root, "val")


def test_a_missing_split_is_told_the_layout(root: Path) -> None:
    with pytest.raises(
        ValueError, match="no Cityscapes images of split 'test': expected leftImg8bit/SPLIT/CITY"
    ):
        open_cityscapes(root)
