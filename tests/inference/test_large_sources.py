"""What large images are read from: windows and levels of every kind of file, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foveal.data.decode import ImageError
from foveal.data.raster import ImageFormat
from foveal.inference.large import ArraySource, Source, Window, open_source
from foveal.ops import halve
from sheets import TRANSFORM, sheet, write_geotiff, write_slide, write_zarr

WINDOW = Window(32, 64, 80, 100)
COLOUR = ImageFormat(3)


def cut(values: np.ndarray, window: Window = WINDOW) -> torch.Tensor:
    part = values[window.top : window.bottom, window.left : window.right]
    return torch.from_numpy(part.copy()).permute(2, 0, 1).float() / 255


def test_every_kind_gives_the_same_window(tmp_path: Path) -> None:
    values = sheet()
    np.save(tmp_path / "a.npy", values)
    Image.fromarray(values).save(tmp_path / "a.png")
    sources: list[Source] = [
        open_source(values),
        open_source(tmp_path / "a.npy"),
        open_source(tmp_path / "a.png"),
    ]
    pytest.importorskip("rasterio")
    sources.append(open_source(write_geotiff(tmp_path / "a.tif", values)))
    pytest.importorskip("zarr")
    sources.append(open_source(write_zarr(tmp_path / "a.zarr", values)))
    pytest.importorskip("tiffslide")
    sources.append(open_source(write_slide(tmp_path / "a.svs", values)))
    for source in sources:
        assert source.size == values.shape[:2] and source.bands == 3, source.name
        torch.testing.assert_close(source.image(WINDOW, 0, COLOUR), cut(values), msg=source.name)
    assert isinstance(sources[1], ArraySource) and isinstance(sources[1].values, np.memmap)


@pytest.mark.parametrize("size", [(150, 220), (151, 219), (1, 7)])
def test_a_level_that_is_not_there_is_made_of_means(size: tuple[int, int]) -> None:
    values = sheet(*size)
    source = open_source(values)
    whole = torch.from_numpy(values.copy()).permute(2, 0, 1)[None].float() / 255
    for level in (1, 2, 3):
        whole = halve(whole)
        height, width = source.size_at(level)
        assert tuple(whole.shape[2:]) == (height, width)
        torch.testing.assert_close(source.image(Window(0, 0, height, width), level, COLOUR), whole[0])


def test_strips_make_the_same_level(monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(sheet())
    window = Window(3, 5, 30, 40)
    whole = source.image(window, 2, COLOUR)
    monkeypatch.setattr("foveal.inference.large.source.STRIP", 700)
    torch.testing.assert_close(source.image(window, 2, COLOUR), whole)
    torch.testing.assert_close(source.wanted(window, 2), torch.ones(30, 40, dtype=torch.bool))


def test_overviews_are_read_where_they_fit_a_level(tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    source = open_source(write_geotiff(tmp_path / "a.tif", sheet(151, 220), (2, 3, 4)))
    assert source.levels == (0, 1, 2)  # a third of the sides is no level
    assert source.place is not None and source.place.transform == TRANSFORM
    alone = open_source(write_geotiff(tmp_path / "b.tif", sheet(152, 224), (4,)))
    assert alone.levels == (0, 2)
    means = open_source(sheet(152, 224)).image(Window(0, 0, 38, 56), 2, COLOUR)
    torch.testing.assert_close(alone.image(Window(0, 0, 38, 56), 2, COLOUR), means, atol=0.005, rtol=0)
    found = alone.image(Window(0, 0, 19, 28), 3, COLOUR)
    torch.testing.assert_close(found, halve(means[None])[0], atol=0.005, rtol=0)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
@pytest.mark.parametrize("bands", [1, 4, 12])
def test_deep_values_of_any_bands_come_by_a_range(dtype: str, bands: int, tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    values = (np.random.default_rng(0).random((70, 90, bands)) * 4000).astype(dtype)
    source = open_source(write_geotiff(tmp_path / "a.tif", values))
    found = source.image(Window(0, 0, 70, 90), 0, ImageFormat(bands, (0, 4000)))
    expected = torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1) / 4000
    torch.testing.assert_close(found, expected)
    if dtype == "float32":
        with pytest.raises(ImageError, match=r"holds values from .* --range"):
            source.image(Window(0, 0, 70, 90), 0, ImageFormat(bands))
    with pytest.raises(ImageError, match="band"):
        source.image(Window(0, 0, 70, 90), 0, ImageFormat(bands + 7, (0, 4000)))


def test_bands_are_chosen_in_an_order(tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    values = np.random.default_rng(0).integers(0, 255, (70, 90, 5), np.uint8)
    path = write_geotiff(tmp_path / "a.tif", values)
    source = open_source(path, (4, 3, 1))
    torch.testing.assert_close(
        source.image(Window(0, 0, 70, 90), 0, COLOUR), cut(values[:, :, [3, 2, 0]], Window(0, 0, 70, 90))
    )
    with pytest.raises(ImageError, match="has bands 1 to 5; given 6"):
        open_source(path, (6,))


def test_nodata_is_not_wanted(tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    values = sheet(64, 64)
    values[:, :32], values[:8, 40] = 7, 7
    source = open_source(write_geotiff(tmp_path / "a.tif", values, nodata=7))
    wanted = source.wanted(Window(0, 0, 64, 64), 0)
    assert not bool(wanted[:, :32].any()) and not bool(wanted[:8, 40].any())
    assert bool(wanted[:, 32:40].all())
    half = source.wanted(Window(0, 0, 32, 32), 1)
    assert not bool(half[:, :16].any()) and bool(half[:, 16:].all())


@pytest.mark.parametrize("suffix", [".tif", ".npy", ".png", ".svs", ".jp2"])
@pytest.mark.parametrize("content", ["empty", "cut", "text"])
def test_damaged_files_are_one_sentence(suffix: str, content: str, tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    pytest.importorskip("tiffslide")
    path, values = tmp_path / f"a{suffix}", sheet(200, 300)
    if content == "cut":
        if suffix == ".npy":
            np.save(path, values)
        elif suffix == ".png":
            Image.fromarray(values).save(path)
        elif suffix == ".svs":
            write_slide(path, values)
        else:
            write_geotiff(tmp_path / "a.tif", values).rename(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.write_text("this is no image at all" * 9 if content == "text" else "")
    with pytest.raises(ImageError, match=r"a\."):
        source = open_source(path)
        source.image(Window(0, 0, *source.size), 0, COLOUR)


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not exist"):
        open_source(tmp_path / "none.png")
    with pytest.raises(ImageError, match="whole numbers or floats"):
        open_source(np.zeros((4, 4), complex))
    with pytest.raises(ImageError, match=r"\[H, W\]"):
        open_source(np.zeros((4, 4, 4, 4), np.uint8))
    pytest.importorskip("zarr")
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(ImageError, match="no OME-Zarr image"):
        open_source(tmp_path / "a.zarr")


def test_gdal_says_nothing_beside_our_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rasterio")
    path = write_geotiff(tmp_path / "a.tif", sheet(40, 60), (2,))
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(ValueError, match="damaged, cut short"):
        open_source(path).read(Window(0, 0, 40, 60))
    assert capfd.readouterr() == ("", "")
