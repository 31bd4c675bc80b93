from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foveal.data.image import ImageError, list_images, read_image, read_labels, save_image, save_labels

RED = (255, 0, 0)
SUFFIXES = ("jpg", "png", "webp", "bmp", "tif", "ppm", "gif")


def test_a_folder_lists_its_images_sorted(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "c.txt", "._a.jpg", "deep/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert list_images(tmp_path) == [tmp_path / "a.jpg", tmp_path / "b.PNG"]
    assert list_images(str(tmp_path / "*.jp*g")) == [tmp_path / "a.jpg"]
    assert list_images(tmp_path / "*" / "*.png") == [tmp_path / "deep" / "d.png"]
    assert list_images(tmp_path / "c.txt") == [tmp_path / "c.txt"]


def test_patterns_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").touch()
    monkeypatch.chdir(tmp_path)
    assert list_images("*.png") == [Path("a.png")]
    assert list_images(".") == [Path("a.png")]


def test_a_folder_with_brackets_is_no_pattern(tmp_path: Path) -> None:
    (tmp_path / "run[1]").mkdir()
    (tmp_path / "run[1]" / "a.png").touch()
    assert list_images(tmp_path / "run[1]") == [tmp_path / "run[1]" / "a.png"]


@pytest.mark.parametrize(
    ("name", "words"), [("", "no image files"), ("no", "not exist"), ("*.png", "no image")]
)
def test_finding_nothing_is_an_error(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        list_images(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))


def test_saved_labels_come_back(tmp_path: Path) -> None:
    labels = torch.tensor([[0, 1, 255]], dtype=torch.uint8)
    save_labels(labels, tmp_path / "a.png", [(10, 20, 30), RED])
    assert torch.equal(read_labels(tmp_path / "a.png"), labels)
    colours = np.array(Image.open(tmp_path / "a.png").convert("RGB"))
    assert colours.tolist() == [[[10, 20, 30], [255, 0, 0], [0, 0, 0]]]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_saved_images_come_back(tmp_path: Path, suffix: str) -> None:
    image = torch.tensor([-1.0, 0.5, 2.0]).view(3, 1, 1).expand(3, 8, 8)
    save_image(image, tmp_path / f"a.{suffix}")
    assert (read_image(tmp_path / f"a.{suffix}") - image.clamp(0, 1)).abs().max() < 0.02


def test_a_saved_png_is_exact(tmp_path: Path, noise: Image.Image) -> None:
    noise.save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    save_image(image, tmp_path / "b.png")
    assert torch.equal(read_image(tmp_path / "b.png"), image)


def test_unwritable_paths_are_named(tmp_path: Path) -> None:
    image, labels = torch.zeros(3, 4, 4), torch.zeros(4, 4, dtype=torch.uint8)
    missing = tmp_path / "no" / "a.png"
    with pytest.raises(OSError, match=r"a\.png cannot be written \(No such file .* make the folder"):
        save_image(image, missing)
    with pytest.raises(OSError, match="cannot be written"):
        save_labels(labels, missing, [RED])
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OSError, match=r"folder\.png cannot be written \(something that is no file"):
        save_image(image, tmp_path / "folder.png")
    with pytest.raises(OSError, match=r"a\.webp cannot be written"):
        save_image(torch.zeros(3, 1, 17000), tmp_path / "a.webp")
    assert not (tmp_path / "a.webp").exists()


def test_unknown_suffixes_are_refused(tmp_path: Path) -> None:
    for name in ("a.xyz", "a"):
        with pytest.raises(ImageError, match=r"known image suffix; give one of \.jpg"):
            save_image(torch.zeros(3, 4, 4), tmp_path / name)
    with pytest.raises(ImageError, match=r"does not end in \.png"):
        save_labels(torch.zeros(4, 4, dtype=torch.uint8), tmp_path / "a.jpg", [RED])


def test_wrong_tensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"uint8 \[H, W\], not torch.int64 \[2, 2\]"):
        save_labels(torch.zeros(2, 2, dtype=torch.int64), tmp_path / "a.png", [RED])
    with pytest.raises(ValueError, match="at most 256 colours, not 257"):
        save_labels(torch.zeros(2, 2, dtype=torch.uint8), tmp_path / "a.png", [RED] * 257)
    with pytest.raises(ValueError, match=r"floating-point \[3, H, W\], not torch.float32 \[1, 2, 2\]"):
        save_image(torch.zeros(1, 2, 2), tmp_path / "a.png")
