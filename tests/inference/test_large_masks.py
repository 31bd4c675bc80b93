"""What a mask of a large image leaves out: it is neither read nor computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from foveal.data.raster import Raster
from foveal.inference.large import ArraySource, Window, segment_large
from foveal.inference.large.mask import find_content, open_mask, otsu
from foveal.storage.labels import VOID
from sheets import TILE, TRANSFORM, engine, sheet, spotted, write_geotiff


class Watched(ArraySource):
    """An array that remembers what was read."""

    def __init__(self, values: np.ndarray[Any, Any]) -> None:
        super().__init__(values)
        self.seen = np.zeros(values.shape[:2], bool)

    def read(self, window: Window, level: int = 0) -> Raster:
        self.seen[window.top : window.bottom, window.left : window.right] = True
        return super().read(window, level)


def labels_of(path: Path) -> np.ndarray[Any, Any]:
    return np.array(Image.open(path))


def cells(where: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The cells in which anything is wanted, as pixels."""
    rows, columns = (side // TILE for side in where.shape)
    some = where.reshape(rows, TILE, columns, TILE).any((1, 3))
    return some.repeat(TILE, 0).repeat(TILE, 1)


def test_what_is_not_wanted_is_neither_read_nor_computed(tmp_path: Path) -> None:
    image, where = spotted(512, 768)
    source, out = Watched(image), tmp_path / "labels.png"
    found = segment_large(engine(), source, out, budget=0.6, window=64, mask=where)
    labels = labels_of(out)
    assert ((labels != VOID) == cells(where)).all()
    assert found.plan is not None and found.wanted == pytest.approx(cells(where).mean())
    near = np.zeros_like(where)
    for top, left in np.argwhere(where)[::97]:  # with what the network looks at, in whole units
        near[max(0, top - 192) : top + 192, max(0, left - 192) : left + 192] = True
    assert not (source.seen & ~near).any() and source.seen.mean() < 0.6
    assert found.planned <= 0.6 + TILE**2 / cells(where).sum()
    everything = segment_large(engine(), image, out, budget=1.0, window=64, mask=where)
    assert everything.planned == pytest.approx(1) and bool(
        (everything.plan.refined == everything.plan.wanted).all()
    )


@pytest.mark.parametrize("budget", [0.5, 1.0])
def test_empty_and_full_masks(budget: float, tmp_path: Path) -> None:
    image, out = sheet(), tmp_path / "labels.png"
    source = Watched(image)
    empty = segment_large(engine(), source, out, budget=budget, window=64, mask=np.zeros((3, 4), bool))
    assert not source.seen.any() and empty.work == 0 and (labels_of(out) == VOID).all()
    segment_large(engine(), image, out, budget=budget, window=64, mask=np.ones((3, 4), bool))
    full = labels_of(out)
    segment_large(engine(), image, out, budget=budget, window=64)
    assert (full == labels_of(out)).all() and (full != VOID).all()


def test_a_mask_of_another_resolution_keeps_every_pixel_that_it_wants() -> None:
    source = ArraySource(sheet(100, 130))
    for shape in ((7, 9), (100, 130), (333, 401)):
        given = np.random.default_rng(1).random(shape) < 0.1
        mask = open_mask(given, source)
        whole = mask.read(Window(0, 0, 50, 65), 1).numpy()
        parts = mask.read(Window(10, 20, 30, 40), 1).numpy()
        assert (whole[10:40, 20:60] == parts).all()
        for y, x in np.argwhere(given):
            row, column = ((k * side // own) for k, side, own in ((y, 100, shape[0]), (x, 130, shape[1])))
            assert whole[row // 2, column // 2]


def test_polygons_lie_where_the_raster_does(tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    path = write_geotiff(tmp_path / "a.tif", sheet(128, 192))
    left, top = TRANSFORM[2] + 0.5 * 48, TRANSFORM[5] - 0.5 * 32  # column 48, row 32
    ring = [[left, top], [left + 32, top], [left + 32, top - 16], [left, top - 16], [left, top]]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32631"}}
    shape = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}}
    polygons = tmp_path / "a.geojson"
    polygons.write_text(json.dumps({"type": "FeatureCollection", "features": [shape], "crs": crs}))
    out = tmp_path / "labels.png"
    segment_large(engine(), path, out, budget=0.7, window=64, mask=polygons)
    expected = np.zeros((128, 192), bool)
    expected[32:64, 48:112] = True
    labelled = labels_of(out) != VOID
    assert (labelled[expected]).all()
    assert labelled.sum() <= (64 + 2 * TILE) * (32 + 2 * TILE)  # polygons that touch a sample want it
    polygons.write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    with pytest.raises(ValueError, match="has no polygon"):
        open_mask(polygons, ArraySource(sheet()))


def test_nodata_of_the_file_is_left_out(tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    values = sheet(128, 192)
    values[:, :96] = 0
    path, out = write_geotiff(tmp_path / "a.tif", values, nodata=0), tmp_path / "labels.png"
    found = segment_large(engine(), path, out, budget=0.5, window=64, mask="nodata")
    labels = labels_of(out)
    assert (labels[:, :96] == VOID).all() and (labels[:, 96:] != VOID).all()
    assert found.wanted == pytest.approx(0.5)


def test_what_is_no_number_has_no_label(tmp_path: Path) -> None:
    values, out = sheet(128, 192).astype(np.float32) / 255, tmp_path / "labels.png"
    values[:, 64:128] = np.nan
    values[5, 5, 1] = np.nan  # in one band: no pixel, though its tile is computed
    values[70:81, 20:33, 2] = np.nan  # tiles at its edge are computed too
    found = segment_large(engine(), values, out, budget=0.5, window=64, confidence=True)
    missing = np.isnan(values).any(2)
    assert ((labels_of(out) == VOID) == missing).all()
    assert (labels_of(found.files["confidence"])[missing] == 0).all()
    assert found.wanted == pytest.approx(2 / 3) and found.pixels[-1] == missing.sum()
    whole = segment_large(engine(), np.full_like(values, np.nan), out, budget=0.5, window=64)
    assert (labels_of(out) == VOID).all() and whole.wanted == 0


@pytest.mark.parametrize("budget", [0.6, 1.0])
def test_no_number_has_no_label_under_a_mask_and_in_files(budget: float, tmp_path: Path) -> None:
    values, out = sheet(128, 192).astype(np.float32) / 255, tmp_path / "labels.png"
    values[20:60, 30:90, 1] = np.nan
    where, missing = np.ones((128, 192), bool), np.isnan(values).any(2)
    where[:, 96:] = False
    segment_large(engine(), values, out, budget=budget, window=64, mask=where)
    assert ((labels_of(out) == VOID) == (missing | ~where)).all()
    np.save(tmp_path / "a.npy", values)
    for mask in (None, "nodata"):
        segment_large(engine(), tmp_path / "a.npy", out, budget=budget, window=64, mask=mask)
        assert ((labels_of(out) == VOID) == missing).all()


def test_no_number_of_a_raster_has_no_label(tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    values, out = sheet(128, 192).astype(np.float32) / 255, tmp_path / "labels.png"
    values[20:60, 30:90, 1] = np.nan
    path = write_geotiff(tmp_path / "a.tif", values, (2,))
    segment_large(engine(), path, out, budget=0.6, window=64)
    assert ((labels_of(out) == VOID) == np.isnan(values).any(2)).all()


def test_what_is_blank_is_found() -> None:
    image, where = spotted(512, 768)
    image[300:360, 400:500] = (120, 120, 120)  # grey and smooth, but not the ground
    where[300:360, 400:500] = True
    found = torch.from_numpy(find_content(ArraySource(image))[0]) > 0
    assert bool(found[torch.from_numpy(where)].float().mean() > 0.98)
    assert float(found.float().mean()) < 1.5 * where.mean()
    blank, _ = find_content(ArraySource(np.full((64, 64, 3), 240, np.uint8)))
    assert not blank.any()


def test_otsu_splits_two_heaps() -> None:
    heaps = torch.cat([torch.randn(900) * 0.02 + 0.2, torch.randn(100) * 0.02 + 0.8])
    assert 0.3 < otsu(heaps) < 0.7
    assert otsu(torch.full((9,), 0.4)) == pytest.approx(0.4)


def test_a_mask_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="does not exist; give nodata, auto"):
        open_mask("nowhere.png", ArraySource(sheet()))
