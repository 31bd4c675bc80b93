from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foveal.data.image import ImageError, read_labels


@pytest.mark.parametrize("mode", ["L", "P"])
def test_label_ids_are_read_as_they_are(tmp_path: Path, mode: str) -> None:
    ids = np.array([[0, 1, 66], [18, 255, 7]], dtype=np.uint8)
    image = Image.fromarray(ids)
    if mode == "P":
        image.putpalette([9, 8, 7] * 256)
    image.save(tmp_path / "a.png")
    labels = read_labels(tmp_path / "a.png")
    assert labels.dtype == torch.uint8 and torch.equal(labels, torch.from_numpy(ids))


@pytest.mark.parametrize(
    ("depth", "row", "ids"),
    [(1, b"\x50", [0, 1, 0, 1]), (2, b"\x1b", [0, 1, 2, 3]), (4, b"\x01\x2f", [0, 1, 2, 15])],
)
def test_few_bit_greyscale_labels_are_not_stretched(
    tmp_path: Path, depth: int, row: bytes, ids: list[int], png_of: Callable[..., bytes]
) -> None:
    (tmp_path / "a.png").write_bytes(png_of(4, 1, depth, [row]))
    assert read_labels(tmp_path / "a.png").tolist() == [ids]


def test_few_colour_palette_labels_are_not_stretched(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1, 2, 3]], dtype=np.uint8))
    image.putpalette([0, 0, 0, 9, 9, 9, 8, 8, 8, 7, 7, 7])
    image.save(tmp_path / "a.png", bits=2)
    assert read_labels(tmp_path / "a.png").tolist() == [[0, 1, 2, 3]]


def test_16_bit_labels(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 255]], dtype=np.uint16)).save(tmp_path / "a.png")
    assert read_labels(tmp_path / "a.png").tolist() == [[0, 255]]
    Image.fromarray(np.array([[3, 256]], dtype=np.uint16)).save(tmp_path / "b.png")
    with pytest.raises(ImageError, match=r"b\.png holds ids from 3 to 256; class ids must be 0 to 255"):
        read_labels(tmp_path / "b.png")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colour_labels_are_refused(tmp_path: Path, mode: str, noise: Image.Image) -> None:
    noise.convert(mode).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=f"holds {mode} pixels.*palette.*colour map"):
        read_labels(tmp_path / "a.png")


def test_jpeg_labels_are_refused(tmp_path: Path, noise: Image.Image) -> None:
    noise.convert("L").save(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match="is a JPEG"):
        read_labels(tmp_path / "a.jpg")
