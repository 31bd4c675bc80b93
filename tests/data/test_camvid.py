from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from foveal.data.camvid import open_camvid
from foveal.data.dataset import open_dataset

Writer = Callable[..., Path]
REAL = os.environ.get("FOVEAL_CAMVID", "")


@pytest.fixture
def pack(tmp_path: Path, write_image: Writer, write_labels: Writer) -> Path:
    """Write the layout with split lists."""
    for folder, name in (("", "a"), ("", "b"), ("", "c"), ("full/", "b")):
        write_image(f"{folder}images/{name}.webp")
        write_labels(f"{folder}labels/{name}.png", 0, 1, 2, 3, 10, 255)
    (tmp_path / "splits").mkdir()
    for split, names in {"train": "a\nc\n", "test": "b\n", "full_test": "b\n", "empty": ""}.items():
        (tmp_path / "splits" / f"{split}.txt").write_text(names)
    return tmp_path


@pytest.fixture
def segnet(tmp_path: Path, write_image: Writer, write_labels: Writer) -> Path:
    """Write the SegNet layout."""
    for split, name in (("train", "a"), ("train", "b"), ("val", "c"), ("test", "d")):
        write_image(f"{split}/{name}.png")
        write_labels(f"{split}annot/{name}.png", 0, 1, 2, 3, 10, 11)
    return tmp_path


def test_the_pack_has_11_classes(pack: Path) -> None:
    data = open_camvid(pack)
    assert data.name == "camvid/test" and len(data.classes) == len(data.palette) == 11
    assert data.classes[0] == "sky" and data.palette[10] == (0, 128, 192)


def test_the_pack_follows_its_split_lists(pack: Path) -> None:
    data = open_dataset(f"camvid:{pack}", "train")
    assert [data.name_of(index) for index in range(len(data))] == ["a", "c"]
    assert data[0][1].tolist() == [[0, 1, 2], [3, 10, 255]]


def test_full_splits_read_the_large_images(pack: Path) -> None:
    data = open_camvid(pack, "full_test")
    assert data.pairs[0].image == pack / "full" / "images" / "b.webp"
    assert data[0][0].shape == (3, 2, 3)


def test_segnet_void_becomes_void(segnet: Path) -> None:
    data = open_camvid(segnet, "train")
    assert len(data) == 2 and len(data.classes) == 11
    assert data[1][1].tolist() == [[0, 1, 2], [3, 10, 255]]
    assert open_camvid(str(segnet), "test").name_of(0) == "d"


def test_an_unknown_split_is_answered_with_the_list(pack: Path) -> None:
    with pytest.raises(ValueError, match="no split 'tset'; it has empty, full_test, test, train"):
        open_camvid(pack, "tset")
    with pytest.raises(ValueError, match=r"empty\.txt lists no image"):
        open_camvid(pack, "empty")


def test_an_unknown_segnet_split_is_told_the_layout(segnet: Path) -> None:
    with pytest.raises(ValueError, match="no folders clip/ and clipannot/: expected"):
        open_camvid(segnet, "clip")


def test_missing_files_are_named(pack: Path) -> None:
    (pack / "images" / "c.webp").unlink()
    with pytest.raises(ValueError, match=r"images lacks c, which .*train\.txt lists"):
        open_camvid(pack, "train")


def test_missing_segnet_labels_are_named(segnet: Path) -> None:
    (segnet / "trainannot" / "b.png").unlink()
    with pytest.raises(ValueError, match=r"train/b\.png has no label file b\.png in .*trainannot \(1 of 2"):
        open_camvid(segnet, "train")


@pytest.mark.skipif(not (REAL and Path(REAL).is_dir()), reason="FOVEAL_CAMVID names no folder")
def test_the_real_data_set() -> None:
    lengths = {split: len(open_camvid(REAL, split)) for split in ("train", "val", "test")}
    assert lengths == {"train": 367, "val": 101, "test": 233}
    image, labels = open_camvid(REAL, "test")[0]
    assert image.shape == (3, 360, 480) and labels.shape == (360, 480)
