"""`foveal large`: what it prints, what it writes, and every way in which it is used wrongly."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commands import parsed, refused, run, small_model
from foveal.data.image import read_labels
from foveal.storage.labels import VOID
from sheets import sheet, spotted, write_geotiff, write_slide

NETWORK = """
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 3, 1))
"""
PAGE = Path(__file__).parents[2] / "docs" / "large.md"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def large(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(sheet(300, 420)).save("image.png")

    def command(*words: object):
        return run("large", *words, "--model", model)

    return command


def test_a_row_says_what_was_done(large) -> None:
    row = parsed(
        large("image.png", "-o", "labels.png", "--window", 128, "--budget", 0.4, "--confidence", "--json")
    )
    assert row["files"] == {"labels": "labels.png", "confidence": "labels_confidence.png"}
    assert row["size"] == [300, 420] and row["megapixels"] == pytest.approx(0.126)
    assert row["planned"] <= 0.4 + 1024 / (300 * 420) and row["work"] >= row["planned"]
    assert row["reach"] is None and row["windows"] == 12 and 0 < row["refined"] < 1
    assert sum(row["classes"].values()) == pytest.approx(1, abs=1e-3)
    labels = read_labels("labels.png")
    assert labels.shape == (300, 420)
    for name, share in row["classes"].items():
        k = list(row["classes"]).index(name)
        assert share == pytest.approx(float((labels == k).double().mean()), abs=1e-4)


def test_text_and_progress(large) -> None:
    result = large("image.png", "-o", "labels.png", "--window", 256)
    assert result.exit_code == 0 and "MP/s" in result.stderr and "left" in result.stderr
    for word in ("work", "windows", "classes", "time", "context", "wrote    labels.png"):
        assert word in result.stdout
    quiet = large("image.png", "-o", "labels.png", "-q")
    assert quiet.stdout == quiet.stderr == ""


def test_a_mask_and_its_lack(large) -> None:
    image = spotted(256, 384)[0]
    Image.fromarray(image).save("image.png")
    row = parsed(large("image.png", "-o", "a.png", "--mask", "auto", "--json", "--budget", 0.5))
    assert row["wanted"] < 0.5
    assert bool((read_labels("a.png") == VOID).any())
    parsed(large("image.png", "-o", "b.png", "--json", "--budget", 0.5))
    assert not bool((read_labels("b.png") == VOID).any())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("none.png -o a.png", "none.png does not exist"),
        ("image.png -o a.gif", "give one of .png"),
        ("image.png -o image.png", "is the image itself"),
        ("image.png -o no/a.png", "make it first"),
        ("image.png -o a.png --budget 0", "budget is 0"),
        ("image.png -o a.png --budget 0.01", "budget is 0.01 and the coarse pass"),
        ("image.png -o a.png --mask none.png", "--mask none.png does not exist"),
        ("image.png -o a.png --bands 0", "--bands is '0'"),
        ("image.png -o a.png --shard 3/2", "--shard is '3/2'"),
        ("image.png -o a.png --policy regional_entropy", "are refined by the answer of every place"),
        ("image.png -o a.png --schedule levels", "large images are refined in one step"),
        ("image.png -o a.png --max-level 1", "No such option: --max-level"),
        ("half.tif -o a.png", "half.tif is damaged, cut short"),
        ("bands.tif -o a.png", "has 12 bands and the network takes 3"),
        ("deep.tif -o a.png", "give the values that become 0 and 1"),
    ],
)
def test_what_is_wrong_is_one_sentence(words: str, said: str, large) -> None:
    pytest.importorskip("rasterio")
    values = np.random.default_rng(0).integers(0, 255, (300, 300, 12), np.uint8)
    write_geotiff(Path("bands.tif"), values)
    write_geotiff(Path("deep.tif"), sheet().astype(np.float32))
    half = write_geotiff(Path("half.tif"), values[:, :, :3], compress="deflate")
    half.write_bytes(half.read_bytes()[: half.stat().st_size * 2 // 3])
    assert said in refused(large(*shlex.split(words)))
    assert not Path("a.png").exists()


def test_bands_and_range_are_given_once(large) -> None:
    pytest.importorskip("rasterio")
    values = np.repeat(sheet(200, 260).astype(np.uint16) * 40, 4, 2)
    write_geotiff(Path("a.tif"), values)
    result = large("a.tif", "-o", "a.png", "--bands", "9,5,1", "--json", "-q")
    assert parsed(result)["size"] == [200, 260]


def commands() -> list[str]:
    """The commands of docs/large.md that begin with foveal large."""
    lines = PAGE.read_text().splitlines()
    found = [
        line.strip().partition("  #")[0].strip() for line in lines if line.startswith("    foveal large ")
    ]
    assert len(found) >= 6
    return found


@pytest.mark.parametrize("command", commands() if PAGE.exists() else [])
def test_every_command_of_the_page_runs(command: str, large, model: Path) -> None:
    """The files that the page speaks of are made here, small; the model is a small one."""
    pytest.importorskip("rasterio")
    pytest.importorskip("zarr")
    pytest.importorskip("tiffslide")
    image, where = spotted(512, 640)
    write_geotiff(Path("field.tif"), image, (2, 4))
    nodata = image.copy()
    nodata[:200] = 0
    write_geotiff(Path("ortho.tif"), nodata, (2, 4), nodata=0)
    write_geotiff(Path("sentinel.tif"), np.repeat(image.astype(np.uint16) * 40, 4, 2))
    ring = [[1000, 9000], [1200, 9000], [1200, 8900], [1000, 8900], [1000, 9000]]
    crs = '{"type": "name", "properties": {"name": "EPSG:32631"}}'
    polygon = f'{{"type": "Polygon", "coordinates": [{ring}], "crs": {crs}}}'
    Path("parcels.geojson").write_text(polygon)
    Image.fromarray((where * 255).astype(np.uint8)).save("where.png")
    write_slide(Path("slide.svs"), image)
    Path("photos").mkdir()
    for k in range(2):
        Image.fromarray(sheet(128, 160, seed=k)).save(f"photos/{k}.jpg")
    words = shlex.split(command)[1:]
    for place, word in enumerate(words):
        if word == "--model" and ":" not in words[place + 1]:
            words[place + 1] = str(model)
    Path("network.py").write_text(NETWORK)
    result = run(*words, *(() if "--model" in words else ("--model", model)))
    assert result.exit_code == 0, result.output
    out = Path(words[words.index("-o") + 1])
    assert out.exists() or "--shard" in words
