"""Where labels of large images go: the same labels in every format, with all that belongs to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from forked import start
from foveal.inference.large import open_source, segment_large
from foveal.inference.large.sink import write_png
from foveal.storage.labels import VOID
from sheets import TRANSFORM, engine, sheet, spotted, write_geotiff


def test_every_format_holds_the_same_labels(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    zarr = pytest.importorskip("zarr")
    image, where = spotted(600, 1100)
    source = write_geotiff(tmp_path / "image.tif", image)
    for name in ("a.png", "a.tif", "a.zarr"):
        segment_large(engine(), source, tmp_path / name, budget=0.6, window=256, mask=where, confidence=True)
    picture = Image.open(tmp_path / "a.png")
    labels, card = np.array(picture), engine().model.card
    assert picture.mode == "P" and set(np.unique(labels)) == {0, 1, 2, 3, VOID}
    assert picture.getpalette()[:6] == [*card.palette[0], *card.palette[1]]
    with rasterio.open(tmp_path / "a.tif") as file:
        assert (file.read(1) == labels).all()
        assert tuple(file.transform)[:6] == TRANSFORM and file.crs.to_epsg() == 32631 and file.nodata == VOID
        assert file.colormap(1)[2][:3] == card.palette[2] and file.overviews(1)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG" and file.block_shapes == [(512, 512)]
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    assert (group["0"][:] == labels).all() and (group["1"][:] == labels[::2, ::2]).all()
    assert group.attrs["image-label"]["colors"][1]["rgba"] == [*card.palette[1], 255]
    again = open_source(tmp_path / "a.zarr")
    assert again.size == labels.shape and again.levels == (0, 1, 2)
    sure = np.array(Image.open(tmp_path / "a_confidence.png"))
    assert (sure[labels == VOID] == 0).all() and (sure[labels != VOID] > 255 // 4 - 1).all()
    with rasterio.open(tmp_path / "a_confidence.tif") as file:
        assert (file.read(1) == sure).all()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_confidence_is_that_of_the_whole_image(tmp_path: Path) -> None:
    image = sheet(200, 260)
    segment_large(engine(), image, tmp_path / "a.png", budget=1.0, window=64, confidence=True)
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    expected = engine().dense()(x).full_logits.softmax(1).amax(1)[0]
    found = torch.from_numpy(np.array(Image.open(tmp_path / "a_confidence.png"))).float() / 255
    torch.testing.assert_close(found, expected, atol=0.5 / 255 + 1e-4, rtol=0)


def test_what_cannot_be_written_is_said_before_anything_is_computed(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "folder.zarr").mkdir()
    for name, said in (
        ("a.gif", "give one of .png, .tif, .tiff, .zarr"),
        ("folder.png", "is a folder"),
        ("folder.zarr", "is no zarr folder"),
        ("none/a.png", "make it first"),
    ):
        with pytest.raises(ValueError, match=said):
            segment_large(engine(), sheet(), tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.png", "folder.zarr"]


def test_a_strip_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    from foveal.inference.large.sink import Layer

    def strips():
        yield np.zeros((4, 8), np.uint8)
        raise OSError(28, "No space left on device")

    out = tmp_path / "a.png"
    out.write_bytes(b"old")
    with pytest.raises(OSError, match=r"a\.png cannot be written"):
        write_png(Layer((8, 8), strips), out, tmp_path)
    assert out.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def on_a_small_disk(out: str, image: str) -> None:
    """Segment in a process whose files may not grow beyond 3000 bytes."""
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    engine()
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
    segment_large(engine(), np.load(image), out, budget=1.0, window=1024)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.zarr"])
def test_a_full_disk_leaves_nothing_that_looks_whole(name: str, tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    pytest.importorskip("zarr")
    (tmp_path / "out").mkdir()
    np.save(tmp_path / "image.npy", sheet(700, 900))
    process = start(tmp_path, on_a_small_disk, str(tmp_path / "out" / name), str(tmp_path / "image.npy"))
    assert process.wait(120) == 1 and "OSError" in process.stderr
    assert not (tmp_path / "out" / name).exists()
    left = [path.name for path in (tmp_path / "out").iterdir()]
    assert all(path.startswith(".") for path in left)  # what was computed waits for the next call
    segment_large(engine(), sheet(700, 900), tmp_path / "out" / name, budget=1.0, window=1024)
    assert (tmp_path / "out" / name).exists()
