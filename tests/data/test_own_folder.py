from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foveal.data.dataset import open_dataset
from foveal.data.raster import ImageFormat
from foveal.objectives.segmentation import cross_entropy
from own_data import disc, write_own


def write(root: Path, *masks: list[int]) -> str:
    for number, values in enumerate(masks):
        for folder, array in (("images", np.full((1, len(values)), 9)), ("masks", np.array([values]))):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(root / folder / f"{number}.png")
    return f"folder:{root}"


def test_0_and_255_are_background_and_foreground(tmp_path: Path) -> None:
    data = open_dataset(f"folder:{write_own(tmp_path / 'own', 3, 'png')}")
    assert data.classes == ("background", "foreground") and not data.counted
    assert torch.equal(data[0][1], torch.from_numpy(disc(0)))
    assert [path.name for path in data.unlabelled] == ["3.png"] and len(data) == 3
    assert any("holds 0 and 255 alone: background and foreground" in note for note in data.notes)


def test_names_of_two_classes_do_not_change_that(tmp_path: Path) -> None:
    spec = write(tmp_path, [0, 255, 0])
    (tmp_path / "classes.json").write_text(json.dumps(["soil", "plant"]))
    data = open_dataset(spec)
    assert data.classes == ("soil", "plant") and data[0][1].tolist() == [[0, 1, 0]]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": ["soil", "plant"], "ignore_index": 255}))
    assert open_dataset(spec)[0][1].tolist() == [[0, 255, 0]], "who says that 255 is void is believed"


def test_0_1_and_255_have_void(tmp_path: Path) -> None:
    data = open_dataset(write(tmp_path, [0, 255, 0], [0, 1, 255]))
    assert len(data.classes) == 2 and data.counted and not data.notes
    assert data[0][1].tolist() == [[0, 255, 0]]


@pytest.mark.parametrize("values", [[0, 128], [0, 2], [1, 200]])
def test_two_other_values_are_refused(tmp_path: Path, values: list[int]) -> None:
    says = f"holds the values {values[0]} and {values[1]} alone, .*classes.json"
    with pytest.raises(ValueError, match=says):
        open_dataset(write(tmp_path, values))


def test_classes_may_be_named(tmp_path: Path) -> None:
    spec = write(tmp_path, [0, 1, 2])
    assert open_dataset(spec, names=("a", "b", "c", "d")).classes == ("a", "b", "c", "d")
    with pytest.raises(ValueError, match="has 3 classes and 2 names are given; give 3"):
        open_dataset(spec, names=("a", "b"))


def test_images_have_the_channels_that_are_asked_for(tmp_path: Path) -> None:
    spec = f"folder:{write_own(tmp_path / 'own', 12, 'float')}"
    image, labels = open_dataset(spec, reading=ImageFormat(12, (0, 5000)))[0]
    assert image.shape == (12, 90, 120) and 0 <= float(image.min()) <= float(image.max()) <= 1
    loss = cross_entropy(torch.zeros(1, 2, 90, 120), labels[None])
    assert labels.dtype == torch.uint8 and float(loss) == pytest.approx(np.log(2), rel=1e-5)


@pytest.mark.parametrize(("values", "void"), [([0, 85, 170], False), ([0, 50, 100, 150, 255], True)])
def test_evenly_spaced_grey_levels_are_a_class_each(tmp_path: Path, values: list[int], void: bool) -> None:
    data = open_dataset(write(tmp_path, values))
    known = values[:-1] if void else values
    assert data.classes == tuple(f"class_{k:02d}" for k in range(len(known))) and data.counted
    assert data[0][1].tolist() == [[*range(len(known)), *[255] * void]]
    says = f"holds {', '.join(map(str, known[:-1]))} and {known[-1]} alone: a class each, from 0 on"
    assert any(says in note for note in data.notes)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([0, 85, 170, 255], "holds 0, 85, 170 and 255 alone, evenly spaced, and 255 may be a class or void"),
        ([0, 7, 100], "holds 0, 7 and 100 alone, too far apart for class ids; name the classes and their"),
        ([76, 149, 255], "holds the values 76 and 149 alone, no ids"),
    ],
)
def test_other_values_with_gaps_are_refused_until_they_are_named(
    tmp_path: Path, values: list[int], says: str
) -> None:
    spec = write(tmp_path, values)
    with pytest.raises(ValueError, match=f"{says}.*classes.json"):
        open_dataset(spec)
    names = [f"kind {value}" for value in values]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": names, "values": values}))
    data = open_dataset(spec)
    assert data.classes == tuple(names) and data[0][1].tolist() == [[*range(len(values))]]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": names[:2], "values": values[:2]}))
    if values[2] != 255:
        with pytest.raises(ValueError, match=f"holds .* {values[2]}|holds {values[2]}"):
            open_dataset(spec)
    else:
        assert open_dataset(spec)[0][1].tolist()[0][2] == 255
    (tmp_path / "classes.json").write_text(json.dumps({"classes": names, "values": values[:2]}))
    with pytest.raises(ValueError, match="is no list of classes"):
        open_dataset(spec)


def test_ids_that_do_not_all_occur_stay_ids(tmp_path: Path) -> None:
    assert len(open_dataset(write(tmp_path, [0, 2, 4, 255])).classes) == 5
    assert len(open_dataset(write(tmp_path / "more", [1, 5, 7, 11, 13])).classes) == 14
