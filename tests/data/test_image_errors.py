from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foveal.data import decode as decode_module
from foveal.data.image import ImageError, read_image, read_labels

SUFFIXES = ("jpg", "png", "webp", "bmp", "tif", "ppm", "gif")


def assert_bad(path: Path, *words: str) -> None:
    for read in (read_image, read_labels):
        with pytest.raises(ImageError) as caught:
            read(path)
        message = str(caught.value)
        assert message.startswith(str(path)) and message.endswith(".") and "\n" not in message
        assert all(word in message for word in words)


def test_pillows_own_limit_neither_stops_nor_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noise: Image.Image
) -> None:
    noise.save(tmp_path / "a.png")
    for limit in (1000, 2000):  # Pillow refuses twice its limit, and warns from the limit on
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert read_image(tmp_path / "a.png").shape == (3, 40, 56)
        assert limit == Image.MAX_IMAGE_PIXELS


def test_too_many_pixels_are_refused(tmp_path: Path, png_of: Callable[..., bytes]) -> None:
    (tmp_path / "a.png").write_bytes(png_of(20001, 10000, 8, []))
    assert_bad(tmp_path / "a.png", "20001 x 10000", "200 million")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.97])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_cut_file_is_refused(tmp_path: Path, suffix: str, part: float, noise: Image.Image) -> None:
    path = tmp_path / f"a.{suffix}"
    noise.save(path)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    assert_bad(path, "cut short")


def test_no_flipped_bit_of_a_png_goes_unnoticed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(path)
    intact, labels = path.read_bytes(), read_labels(path)
    for position, bit in product(range(len(intact)), range(8)):  # the decoder itself misses one of these
        wrong = bytes([intact[position] ^ 1 << bit])
        path.write_bytes(intact[:position] + wrong + intact[position + 1 :])
        try:
            assert torch.equal(read_labels(path), labels)
        except ImageError as error:
            assert str(error).startswith(str(path))


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    assert_bad(tmp_path / "a.png", "is empty")


def test_a_text_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("this is no picture")
    assert_bad(tmp_path / "a.jpg", "is no image")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert_bad(tmp_path, "is a folder")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert_bad(tmp_path / "a.png", "does not exist")


def test_a_forbidden_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noise: Image.Image
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    noise.save(tmp_path / "a.png")
    monkeypatch.setattr(decode_module.Image, "open", refuse)  # as root no file is forbidden
    assert_bad(tmp_path / "a.png", "permission denied")
