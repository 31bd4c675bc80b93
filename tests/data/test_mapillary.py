from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from foveal.data.dataset import open_dataset
from foveal.data.mapillary import open_mapillary

Writer = Callable[..., Path]


@pytest.fixture
def root(tmp_path: Path, write_image: Writer, write_labels: Writer) -> Path:
    write_image("training/images/a.jpg")
    write_labels("training/labels/a.png", 0, 1, 64, 65, 13, 65, palette=True)
    write_image("validation/images/b.jpg")
    write_labels("validation/v1.2/labels/b.png", 0, 1, 2, 3, 4, 65, palette=True)
    write_image("testing/images/c.jpg")
    return tmp_path


def write_config(root: Path, count: int, name: str = "config.json") -> None:
    labels = [{"name": f"thing--{i}", "readable": f"Thing {i}", "color": [i, 2, 3]} for i in range(count)]
    (root / name).write_text(json.dumps({"labels": labels, "version": "1.2"}))


def test_unlabelled_becomes_void(root: Path) -> None:
    data = open_dataset(f"mapillary:{root}", "train")
    assert data.name == "mapillary/train" and len(data) == 1
    assert data[0][1].tolist() == [[0, 1, 64], [255, 13, 255]]


def test_the_layout_of_release_2(root: Path) -> None:
    assert open_mapillary(root, "val")[0][1].tolist() == [[0, 1, 2], [3, 4, 255]]


def test_splits_may_be_named_as_their_folders(root: Path) -> None:
    assert open_mapillary(root, "validation").pairs == open_mapillary(root, "val").pairs


def test_without_config_the_names_are_generic(root: Path) -> None:
    data = open_mapillary(root, "train")
    assert len(data.classes) == len(data.palette) == 65 and data.classes[7] == "class_07"


@pytest.mark.parametrize("name", ["config.json", "config_v1.2.json"])
def test_names_and_colours_come_from_the_config(root: Path, name: str) -> None:
    write_config(root, 66, name)
    data = open_mapillary(root, "train")
    assert len(data.classes) == 65
    assert data.classes[64] == "Thing 64" and data.palette[64] == (64, 2, 3)


def test_the_config_of_another_version_is_refused(root: Path) -> None:
    write_config(root, 124)
    with pytest.raises(ValueError, match=r"config\.json has 124 labels; version 1\.2 of the data set has 66"):
        open_mapillary(root, "train")


@pytest.mark.parametrize(
    "text",
    [
        *("[]", "no json", "{}", '{"labels": [1]}', '{"labels": [{"name": "a"}]}'),
        *(
            '{"labels": [{"name": "a", "color": [1, 2, 256]}]}',
            '{"labels": [{"name": 3, "color": [1, 2, 3]}]}',
        ),
        '{"labels": [{"name": "a", "color": ["x", 2, 3]}]}',
    ],
)
def test_a_malformed_config_is_refused(root: Path, text: str) -> None:
    (root / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json( has no \"labels\"|: no list of classes)"):
        open_mapillary(root, "train")


@pytest.mark.parametrize("split", ["test", "testing", "street"])
def test_splits_without_labels_are_refused(root: Path, split: str) -> None:
    with pytest.raises(ValueError, match=f"of split '{split}': expected training/ and validation/"):
        open_mapillary(root, split)


def test_an_image_without_labels_is_named(root: Path, write_image: Writer) -> None:
    write_image("training/images/x.jpg")
    with pytest.raises(ValueError, match=r"x\.jpg has no label file x\.png in .*labels \(1 of 2"):
        open_mapillary(root, "train")
