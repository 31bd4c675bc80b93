from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
import torch

from foveal.data.dataset import DATASETS, Dataset, Pair, default_palette, open_dataset
from foveal.data.image import ImageError
from foveal.storage.labels import VOID

Writer = Callable[..., Path]


@pytest.fixture
def pair(write_image: Writer, write_labels: Writer) -> Pair:
    return Pair(write_image("one.png"), write_labels("one_labels.png", 0, 1, 2, 2, 1, 255))


def dataset(*pairs: Pair, count: int = 3, remap: torch.Tensor | None = None) -> Dataset:
    names = tuple(f"class_{index}" for index in range(count))
    return Dataset("tiny", names, default_palette(count), pairs, remap)


def test_an_item_is_an_image_with_its_labels(pair: Pair) -> None:
    image, labels = dataset(pair)[0]
    assert image.shape == (3, 2, 3) and image.dtype == torch.float32
    assert torch.allclose(image, torch.tensor(0.2))
    assert labels.dtype == torch.uint8 and labels.tolist() == [[0, 1, 2], [2, 1, VOID]]


def test_length_names_and_iteration(pair: Pair) -> None:
    data = dataset(pair, pair)
    assert len(data) == 2 and data.name_of(1) == "one" and data.name_of(-1) == "one"
    assert len(list(data)) == 2  # type: ignore[call-overload]
    with pytest.raises(IndexError):
        data[2]


def test_remap_translates_the_ids_of_the_files(pair: Pair) -> None:
    remap = torch.full((256,), VOID, dtype=torch.uint8)
    remap[2] = 0
    _, labels = dataset(pair, count=1, remap=remap)[0]
    assert labels.tolist() == [[255, 255, 0], [0, 255, 255]]


def test_a_dataset_is_frozen_comparable_and_picklable(pair: Pair) -> None:
    data = dataset(pair, remap=torch.arange(256, dtype=torch.uint8))
    with pytest.raises(FrozenInstanceError):
        data.name = "other"  # type: ignore[misc]
    again = pickle.loads(pickle.dumps(data))
    assert again == data and hash(again) == hash(data)
    assert torch.equal(again[0][1], data[0][1])


def test_sizes_must_agree(pair: Pair, write_image: Writer) -> None:
    large = write_image("large.png", 4, 5)
    with pytest.raises(ImageError) as caught:
        dataset(Pair(large, pair.labels))[0]
    for part in (str(large), "5 x 4", str(pair.labels), "3 x 2"):
        assert part in str(caught.value)


def test_ids_must_be_classes_or_void(pair: Pair) -> None:
    with pytest.raises(
        ImageError, match=r"one_labels\.png .*one\.png.* class id 2; allowed are 0 to 1, and 255"
    ):
        dataset(pair, count=2)[0]


def test_a_missing_file_is_named(pair: Pair) -> None:
    with pytest.raises(ImageError, match=r"no\.png does not exist"):
        dataset(Pair(pair.image, Path("no.png")))[0]


@pytest.mark.parametrize("count", [0, 1, 19, 256])
def test_default_palette_is_distinct_and_stable(count: int) -> None:
    palette = default_palette(count)
    assert len(palette) == len(set(palette)) == count
    assert palette == default_palette(256)[:count]
    assert all(0 <= level <= 255 for colour in palette for level in colour)


def test_the_first_default_colours_are_far_apart() -> None:
    palette = torch.tensor(default_palette(12)).float()
    assert torch.pdist(palette).min() > 50
    assert palette.norm(dim=1).min() > 80  # void is black


def test_the_known_kinds() -> None:
    assert sorted(DATASETS) == ["camvid", "cityscapes", "folder", "mapillary"]


@pytest.mark.parametrize("spec", ["camvis:/data", "/data/camvid", "", "CamVid:/data", ":"])
def test_an_unknown_kind_is_refused_with_the_list(spec: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(spec)) + ".*KIND:PATH.*camvid, cityscapes"):
        open_dataset(spec)


def test_an_unknown_kind_gets_a_suggestion() -> None:
    with pytest.raises(ValueError, match="did you mean 'cityscapes'"):
        open_dataset("citiscape:/data")


@pytest.mark.parametrize("kind", sorted(DATASETS))
def test_a_missing_path_is_named(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist; give"):
        open_dataset(f"{kind}:{tmp_path / 'no'}")
    with pytest.raises(ValueError, match="empty"):
        open_dataset(kind)


@pytest.mark.parametrize("kind", sorted(DATASETS))
def test_an_empty_folder_gets_told_the_layout(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path))}.*expected .*/"):
        open_dataset(f"{kind}:{tmp_path}", "train")
