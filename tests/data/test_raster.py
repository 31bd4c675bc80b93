from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from foveal.data.image import ImageError, read_image, read_labels
from foveal.data.masks import open_masks
from foveal.data.raster import read_raster
from own_data import write_tiff

NOISE = np.random.default_rng(0).random((7, 9, 6))


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 6])
@pytest.mark.parametrize(("dtype", "scale"), [("uint8", 255), ("uint16", 65535), ("float32", 1)])
def test_no_band_of_a_tiff_is_lost(tmp_path: Path, bands: int, dtype: str, scale: int) -> None:
    values = (NOISE[:, :, :bands] * scale).astype(dtype)
    write_tiff(tmp_path / "a.tif", values)
    image = read_image(tmp_path / "a.tif", bands)
    assert image.dtype == torch.float32 and image.is_contiguous()
    expected = torch.from_numpy(values.astype(np.float32) / np.float32(scale)).permute(2, 0, 1)
    torch.testing.assert_close(image, expected, atol=1e-6, rtol=0)


def test_bands_may_lie_in_planes(tmp_path: Path) -> None:
    planes = (NOISE.transpose(2, 0, 1) * 65535).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="minisblack", planarconfig="separate")
    image = read_image(tmp_path / "a.tif", 6)
    torch.testing.assert_close(image, torch.from_numpy(planes.astype(np.float32) / 65535))


def test_a_tiff_whose_values_are_not_what_it_says_is_damaged_in_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, np.ones((8, 10, 3), np.uint8), photometric="rgb")
    bits, whole = struct.pack("<3H", 8, 8, 8), file.read_bytes()
    assert whole.count(bits) == 1
    file.write_bytes(whole.replace(bits, struct.pack("<3H", 246, 0, 284)).replace(b"\x1c\x01", b"\x1c\x09"))
    with pytest.raises(
        ImageError, match=r"a\.tif is damaged or no picture: it says 8 rows of 10 pixels, and"
    ):
        read_image(file)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 1), (7, 9, 5)])
def test_arrays_have_their_bands_last(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(1).integers(0, 255, shape, dtype=np.uint8)
    np.save(tmp_path / "a.npy", values)
    image = read_image(tmp_path / "a.npy", 1 if len(shape) == 2 else shape[2])
    assert torch.equal(image, torch.from_numpy(values.reshape(7, 9, -1)).permute(2, 0, 1).float() / 255)


@pytest.mark.parametrize("values", [np.zeros((2, 3, 100)), np.zeros((2, 2, 2, 2)), np.zeros((0, 3))])
def test_other_arrays_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(ImageError, match=r"a\.npy holds an array .*give \[H, W\], or \[H, W, bands\]"):
        read_image(tmp_path / "a.npy")


def test_arrays_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(ImageError, match="is no array, or damaged"):
        read_image(tmp_path / "a.npy")


def test_a_range_is_one_rule_for_all_images(tmp_path: Path) -> None:
    for name, top in (("dark", 900.0), ("bright", 12000.0)):
        write_tiff(tmp_path / f"{name}.tif", np.array([[[0.0], [top], [500.0]]], dtype=np.float32))
    dark, bright = (read_image(tmp_path / f"{n}.tif", 1, (0, 10000)) for n in ("dark", "bright"))
    torch.testing.assert_close(dark[0, 0], torch.tensor([0, 0.09, 0.05]))
    torch.testing.assert_close(bright[0, 0], torch.tensor([0, 1.0, 0.05]))


@pytest.mark.parametrize(("bands", "channels"), [(6, 4), (4, 3), (2, 1), (3, 6)])
def test_bands_that_do_not_fit_are_refused(tmp_path: Path, bands: int, channels: int) -> None:
    write_tiff(tmp_path / "a.tif", NOISE[:, :, :bands].astype(np.float32))
    with pytest.raises(ImageError, match=rf"a\.tif has {bands} bands and the network takes {channels}; give"):
        read_image(tmp_path / "a.tif", channels)


def test_colour_serves_a_grey_network_and_grey_a_colour_one(tmp_path: Path) -> None:
    Image.new("RGB", (4, 3), (255, 0, 0)).save(tmp_path / "red.png")
    assert torch.allclose(read_image(tmp_path / "red.png", 1), torch.full((1, 3, 4), 0.299))
    Image.new("L", (4, 3), 51).save(tmp_path / "grey.png")
    assert torch.allclose(read_image(tmp_path / "grey.png"), torch.full((3, 3, 4), 0.2))


def test_transparency_is_blended_a_band_or_nodata(tmp_path: Path) -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (255, 0, 0, 0))
    image.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[:, 0, 1].tolist() == [0.5, 0.5, 0.5]
    assert read_image(tmp_path / "a.png", 4)[:, 0].T.tolist() == [[1, 0, 0, 1], [1, 0, 0, 0]]
    assert read_raster(tmp_path / "a.png").wanted().tolist() == [[True, False]]


def test_nodata_is_what_a_file_declares_else_what_is_zero(tmp_path: Path) -> None:
    values = np.array([[[-9999.0, -9999], [0, 0], [5, -9999], [np.nan, np.nan]]], dtype=np.float32)
    write_tiff(tmp_path / "a.tif", values, nodata="-9999")
    raster = read_raster(tmp_path / "a.tif")
    assert raster.nodata == -9999
    assert raster.wanted().tolist() == [[False, True, True, False]]
    image = read_image(tmp_path / "a.tif", 2, (0, 10))
    assert image[:, 0].T.tolist() == [[0, 0], [0, 0], [0.5, 0], [0, 0]]
    write_tiff(tmp_path / "b.tif", np.array([[[0, 0], [0, 1]]], dtype=np.uint8))
    assert read_raster(tmp_path / "b.tif").wanted().tolist() == [[False, True]]
    Image.fromarray(np.array([[0, 7]], dtype=np.uint8)).save(tmp_path / "c.tif", tiffinfo={42113: "7"})
    assert read_raster(tmp_path / "c.tif").wanted().tolist() == [[True, False]]


def test_masks_are_a_file_a_folder_or_nodata(tmp_path: Path) -> None:
    for name, value in (("image", 9), ("mask", 0)):
        (tmp_path / name).mkdir()
        picture = Image.new("L", (2, 1), value)
        picture.putpixel((1, 0), 200)
        picture.save(tmp_path / name / "a.png")
    image = read_raster(tmp_path / "image" / "a.png")
    for given in (tmp_path / "mask", tmp_path / "mask" / "a.png"):
        assert open_masks(str(given)).of(image).tolist() == [[False, True]]
    assert open_masks("nodata").of(image).tolist() == [[True, True]]


def test_labels_may_be_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[0, 255, 3]], dtype=np.int64))
    assert read_labels(tmp_path / "a.npy").tolist() == [[0, 255, 3]]
    np.save(tmp_path / "a.npy", np.array([[0.5]]))
    with pytest.raises(ImageError, match="class ids"):
        read_labels(tmp_path / "a.npy")
