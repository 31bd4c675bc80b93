from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foveal.data.image import ImageError, read_image

RED = (255, 0, 0)
SUFFIXES = ("jpg", "png", "webp", "bmp", "tif", "ppm", "gif")


def test_rgb_is_exact_and_contiguous(tmp_path: Path, noise: Image.Image) -> None:
    noise.save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.shape == (3, 40, 56) and image.dtype == torch.float32 and image.is_contiguous()
    expected = torch.from_numpy(np.array(noise)).permute(2, 0, 1) / 255
    assert torch.equal(image, expected)


def test_a_path_may_be_a_string(tmp_path: Path, noise: Image.Image) -> None:
    noise.save(tmp_path / "a.png")
    assert torch.equal(read_image(str(tmp_path / "a.png")), read_image(tmp_path / "a.png"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (9, 7), (200, 100, 50)).save(path)
    expected = torch.tensor([200, 100, 50]).view(3, 1, 1) / 255
    assert (read_image(path) - expected).abs().max() < 0.02


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_white_is_white_in_every_mode(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.tif"
    if mode in ("I;16", "I", "F"):
        dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        image = Image.fromarray(np.full((3, 4), 1 if mode == "F" else 65535, dtype=dtype))
    else:
        image = Image.new("RGB", (4, 3), "white").convert(mode)
    image.save(path)
    assert torch.equal(read_image(path), torch.ones(3, 3, 4))


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    levels = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}")
    assert torch.allclose(image[1, 0], torch.tensor([0, 256, 32768, 65535]) / 65535, atol=1e-7)


@pytest.mark.parametrize("value", [-1.0, 200.0, float("inf")])
def test_floats_beyond_0_to_1_need_a_range(tmp_path: Path, value: float) -> None:
    Image.fromarray(np.array([[0, value]], dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=r"a\.tif holds values from .* once, for all images: --range"):
        read_image(tmp_path / "a.tif")


def test_floats_in_0_to_1_are_taken_as_they_are(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.25, 0.5]], dtype=np.float32)).save(tmp_path / "a.tif")
    assert torch.equal(read_image(tmp_path / "a.tif")[0, 0], torch.tensor([0.25, 0.5]))


def test_transparent_pixels_are_blended_over_grey(tmp_path: Path) -> None:
    image = Image.new("RGBA", (3, 1))
    for column, alpha in enumerate((255, 0, 51)):
        image.putpixel((column, 0), (*RED, alpha))
    image.save(tmp_path / "a.png")
    expected = torch.tensor([[1, 0.5, 0.6], [0, 0.5, 0.4], [0, 0.5, 0.4]])
    assert torch.allclose(read_image(tmp_path / "a.png")[:, 0], expected)


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])])
def test_palette_with_transparency(tmp_path: Path, transparency: int | bytes) -> None:
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8))
    image.putpalette([*RED, 0, 255, 0])
    image.save(tmp_path / "a.png", transparency=transparency)
    assert torch.equal(read_image(tmp_path / "a.png")[:, 0].T, torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0.5]]))


def test_the_exif_rotation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (20, 10))
    image.paste(RED, (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    turned = read_image(tmp_path / "a.png")
    assert turned.shape == (3, 20, 10)
    assert turned[0, :10].min() == 1 and turned[0, 10:].max() == 0


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_damaged_exif_block_does_not_matter(tmp_path: Path, noise: Image.Image) -> None:
    noise.save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05junk")
    assert read_image(tmp_path / "a.jpg").shape == (3, 40, 56)


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_an_animation_gives_its_first_frame(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, (0, 255, 0))]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], lossless=True)
    assert torch.equal(read_image(tmp_path / f"a.{suffix}")[:, 0, 0], torch.tensor([1.0, 0, 0]))


def test_a_7000_by_5000_image_is_read(tmp_path: Path) -> None:
    Image.new("L", (7000, 5000), 255).save(tmp_path / "a.png", compress_level=1)
    assert read_image(tmp_path / "a.png").shape == (3, 5000, 7000)
