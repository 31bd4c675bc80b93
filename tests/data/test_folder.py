from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from foveal.data.dataset import open_dataset
from foveal.data.folder import open_folder, read_classes

Writer = Callable[..., Path]
DICTIONARIES = [{"id": 1, "name": "road", "color": [1, 2, 3]}, {"id": 0, "name": "sky", "color": [4, 5, 6]}]


@pytest.fixture(params=["masks", "labels"])
def flat(request: pytest.FixtureRequest, tmp_path: Path, write_image: Writer, write_labels: Writer) -> Path:
    """Write two pairs without splits."""
    for name, highest in (("a", 1), ("b", 4)):
        write_image(f"images/{name}.jpg")
        write_labels(f"{request.param}/{name}.png", 0, 0, 1, 1, highest, 255)
    return tmp_path


@pytest.fixture
def split(tmp_path: Path, write_image: Writer, write_labels: Writer) -> Path:
    """Write a pair in each of two splits, of which only the second shows class 2."""
    for name, highest in (("train", 1), ("val", 2)):
        write_image(f"images/{name}/{name}_image.jpg")
        write_labels(f"masks/{name}/{name}_image.png", 0, 0, 1, 1, highest, 255)
    return tmp_path


def write_classes(folder: Path, content: object) -> Path:
    path = folder / "classes.json"
    path.write_text(json.dumps(content))
    return path


def test_flat_folders_are_one_split(flat: Path) -> None:
    data = open_dataset(f"folder:{flat}")
    assert data.name == f"{flat.name}/test" and len(data) == 2 and data.name_of(1) == "b"
    assert data[1][1].tolist() == [[0, 0, 1], [1, 4, 255]]


def test_the_masks_tell_the_number_of_classes(flat: Path) -> None:
    data = open_folder(flat)
    assert data.classes == ("class_00", "class_01", "class_02", "class_03", "class_04")
    assert len(data.palette) == 5


def test_hidden_files_are_no_masks(flat: Path) -> None:
    masks = flat / "masks" if (flat / "masks").is_dir() else flat / "labels"
    (masks / "._a.png").write_bytes(b"what macOS leaves on memory sticks")
    assert len(open_folder(flat).classes) == 5


def test_all_splits_have_the_same_classes(split: Path) -> None:
    train, val = open_folder(split, "train"), open_folder(split, "val")
    assert train.classes == val.classes == ("class_00", "class_01", "class_02")
    assert train.name_of(0) == "train_image" and val.name_of(0) == "val_image"


def test_clips_are_splits_whose_frames_are_in_order(
    tmp_path: Path, write_image: Writer, write_labels: Writer
) -> None:
    for clip, frames in (("dog", (2, 10, 1)), ("swan", (0,))):
        for k in frames:
            write_image(f"images/{clip}/{k:05d}.png")
            write_labels(f"masks/{clip}/{k:05d}.png", 0, 0, 255, 255, 0, 255)
    write_classes(tmp_path, {"classes": ["background", "foreground"]})
    data = open_dataset(f"folder:{tmp_path}", "dog")
    assert [data.name_of(k) for k in range(3)] == ["00001", "00002", "00010"]
    assert data[0][1].unique().tolist() == [0, 1]  # 255 is the foreground
    joined = open_dataset(f"folder:{tmp_path}", "swan+dog")
    assert [pair.image.parent.name for pair in joined.pairs] == ["swan", "dog", "dog", "dog"]


def test_split_images_may_share_a_mask_folder(
    tmp_path: Path, write_image: Writer, write_labels: Writer
) -> None:
    write_image("images/train/a.png")
    for name in ("a", "b"):
        write_labels(f"masks/{name}.png", 0, 1, 2, 0, 1, 2)
    assert len(open_folder(tmp_path, "train")) == 1


@pytest.mark.parametrize(
    "content",
    [
        {"classes": ["sky", "road"], "palette": [[4, 5, 6], [1, 2, 3]]},
        {"classes": DICTIONARIES, "ignore_index": 255},
        DICTIONARIES,
    ],
)
def test_shapes_of_the_class_file(tmp_path: Path, content: object) -> None:
    classes = read_classes(write_classes(tmp_path, content))
    assert classes.names == ("sky", "road") and classes.palette == ((4, 5, 6), (1, 2, 3))
    assert classes.void in (None, 255)


@pytest.mark.parametrize("content", [["sky", "road"], [{"id": 0, "name": "sky"}, {"id": 1, "name": "road"}]])
def test_colours_are_optional(tmp_path: Path, content: object) -> None:
    classes = read_classes(write_classes(tmp_path, content))
    assert classes.names == ("sky", "road") and len(set(classes.palette)) == 2


def test_another_void_value(split: Path) -> None:
    write_classes(split, {"classes": ["a", "b"], "ignore_index": 2})
    assert open_folder(split, "val")[0][1].tolist() == [[0, 0, 1], [1, 255, 255]]


@pytest.mark.parametrize(
    "content",
    [
        {},
        3,
        [],
        ["a", 1],
        {"classes": None},
        {"classes": ["a"], "palette": [[1, 2, 3], [4, 5, 6]]},
        {"classes": ["a"], "palette": [[1, 2]]},
        {"classes": ["a"], "palette": [[1, 2, 300]]},
        {"classes": ["a"], "ignore_index": "none"},
        [{"id": 1, "name": "a"}],
        [{"id": 0, "name": "a"}, {"id": 0, "name": "b"}],
        [{"name": "a"}],
        [{"id": 0, "name": 7}],
        [{"id": 0, "name": "a", "color": [1.5, 2, 3]}],
        [{"id": 0, "name": "a", "color": [1, 2, 256]}],
        [{"id": 0, "name": "a", "color": [1, 2, 3]}, {"id": 1, "name": "b"}],
        {"classes": "ab"},
        {"classes": ["a", "b"], "ignore_index": True},
        ["a"] * 256,
    ],
)
def test_a_malformed_class_file_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(ValueError, match=r"classes\.json is no list of classes: expected \{\"classes\""):
        read_classes(write_classes(tmp_path, content))


def test_a_class_file_that_is_no_json_is_refused(flat: Path) -> None:
    (flat / "classes.json").write_text("sky, road")
    with pytest.raises(ValueError, match=r"classes\.json: no list of classes"):
        open_folder(flat)


def test_an_id_beyond_the_class_file_is_named(flat: Path) -> None:
    write_classes(flat, ["sky", "road"])
    with pytest.raises(ValueError, match=r"b\.png .* holds class id 4; allowed are 0 to 1"):
        open_folder(flat)[1]


def test_an_unknown_split_is_answered_with_the_list(split: Path) -> None:
    with pytest.raises(ValueError, match="no split 'test'; it has train, val: expected images/"):
        open_folder(split)


def test_missing_masks_are_named(tmp_path: Path, write_image: Writer, write_labels: Writer) -> None:
    write_image("images/a.jpg")
    with pytest.raises(ValueError, match="labels does not exist: expected"):
        open_folder(tmp_path)
    write_labels("masks/b.png", 0, 0, 0, 0, 0, 0)
    with pytest.raises(ValueError, match=r"a\.jpg has no label file a\.png in .*masks"):
        open_folder(tmp_path)


def test_masks_of_nothing_but_void_are_refused(
    tmp_path: Path, write_image: Writer, write_labels: Writer
) -> None:
    write_image("images/a.jpg")
    write_labels("masks/a.png", *[255] * 6)
    with pytest.raises(ValueError, match=r"holds void \(255\) only"):
        open_folder(tmp_path)
