"""Bad input is refused with one sentence and exit code 2, odd input is taken; never a traceback."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load, save

from commands import Result, parsed, refused, run, small_model
from foveal.data.image import read_labels

Segment = Callable[..., Result]
HEIGHT, WIDTH = 70, 100


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def segment(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Segment:
    out = tmp_path_factory.mktemp("out")

    def command(*arguments: object) -> Result:
        chosen = () if "--model" in arguments else ("--model", model)
        folder = () if "--out" in arguments else ("--out", out)
        return run("segment", *arguments, *chosen, *folder, "--no-keep-memory")

    return command


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    picture(HEIGHT, WIDTH).save(path)
    return path


def picture(height: int, width: int, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    picture(HEIGHT, WIDTH).save(buffer, kind)
    return buffer.getvalue()


BAD_FILES = {
    "empty.png": b"",
    "text.jpg": b"this is a text, not an image\n",
    "short.png": encoded("png")[:-2000],
    "short.jpg": encoded("jpeg")[: len(encoded("jpeg")) // 2],
    "header.png": encoded("png")[:20],
    "corrupt.png": encoded("png")[:500] + bytes(200) + encoded("png")[700:],
    "short.webp": encoded("webp")[:300],
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_named(segment: Segment, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(BAD_FILES[name])
    assert str(path) in refused(segment(path))


@settings(max_examples=15)
@given(start=st.integers(0, 400), length=st.integers(1, 400), value=st.integers(0, 255))
def test_damaged_files_are_refused_or_read(segment: Segment, tmp_path: Path, start, length, value) -> None:
    content = bytearray(encoded("png"))
    content[start : start + length] = bytes([value]) * length
    path = tmp_path / "damaged.png"
    path.write_bytes(content)
    result = segment(path, "--json")
    assert parsed(result) if result.exit_code == 0 else refused(result)


def test_what_is_no_file_is_named(segment: Segment, tmp_path: Path) -> None:
    assert "none.png does not exist" in refused(segment(tmp_path / "none.png"))
    assert "no image files" in refused(segment(tmp_path))
    assert "no image files" in refused(segment(f"{tmp_path}/*.png"))


def test_a_single_damaged_file_prints_no_json(segment: Segment, tmp_path: Path) -> None:
    path = tmp_path / "empty.png"
    path.touch()
    refused(segment(path, "--json"))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK", "LA", "1", "I;16"])
def test_every_kind_of_pixel_is_taken(segment: Segment, tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    deep = np.random.default_rng(0).integers(0, 65535, (HEIGHT, WIDTH), dtype=np.uint16)
    (Image.fromarray(deep) if mode == "I;16" else picture(HEIGHT, WIDTH, mode)).save(path)
    row = parsed(segment(path, "--json"))
    assert row["size"] == [HEIGHT, WIDTH]
    assert read_labels(row["files"]["mask"]).shape == (HEIGHT, WIDTH)


def test_rotated_images_come_out_upright(segment: Segment, tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(HEIGHT, WIDTH).save(path, exif=exif)
    assert parsed(segment(path, "--json"))["size"] == [WIDTH, HEIGHT]


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (31, 31), (33, 129)])
def test_any_size_is_taken(segment: Segment, tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "small.png"
    picture(*size).save(path)
    row = parsed(segment(path, "--json"))
    assert row["size"] == list(size)
    assert read_labels(row["files"]["mask"]).shape == size


@pytest.mark.slow
def test_a_huge_image_is_taken(segment: Segment, tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    picture(5000, 7000).save(path)
    assert parsed(segment(path, "--json"))["size"] == [5000, 7000]


@pytest.mark.parametrize("budget", ["0", "-0.5", "2", "nan", "inf", "-inf"])
def test_budgets_that_are_no_share_are_refused(segment: Segment, photo: Path, budget: str) -> None:
    sentence = refused(segment(photo, "--budget", budget))
    assert "must be above 0 and at most 1" in sentence


def test_a_budget_that_nothing_meets_says_what_would(segment: Segment, tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    picture(300, 400).save(path)
    assert "give a higher coarse level" in refused(segment(path, "--budget", 0.05))
    assert "raise the budget" in refused(
        segment(path, "--budget", 0.001, "--policy", "detail", "--max-level", 1)
    )
    assert "raise the budget" in refused(segment(path, "--budget", 0.05, "--method", "coarse_to_fine"))


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--method", "segblock", "did you mean 'segblocks'?"),
        ("--policy", "entrpy", "did you mean 'entropy'?"),
        ("--policy", "oracle", "needs labels"),
        ("--tile", 33, "give a multiple of 32, such as 32"),
        ("--tile", 0, "--tile"),
        ("--max-level", 99, "--max-level"),
        ("--coarse-level", -1, "--coarse-level"),
        ("--coarse-level", 10**6, "--coarse-level"),
        ("--tile", 10**9, "--tile"),
        ("--budget", "1e400", "must be above 0 and at most 1"),
        ("--repeat", 0, "--repeat"),
        ("--threads", 0, "--threads"),
    ],
)
def test_wrong_settings_are_refused(
    segment: Segment, photo: Path, option: str, value: object, says: str
) -> None:
    assert says in refused(segment(photo, option, value))


def test_a_missing_model_is_named(segment: Segment, photo: Path, tmp_path: Path) -> None:
    assert "no model 'camvid_rn81'; did you mean 'camvid_rn18'?" in refused(
        segment(photo, "--model", "camvid_rn81")
    )
    assert "no model" in refused(segment(photo, "--model", tmp_path))
    assert "no model" in refused(segment(photo, "--model", tmp_path / "none.safetensors"))


DAMAGED_WEIGHTS: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[:-1000],
    "empty": lambda content: b"",
    "garbage": lambda content: b"garbage" * 100,
    "a tensor missing": lambda content: save({k: v for k, v in load(content).items() if "stem" not in k}),
}
DAMAGED_CARDS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "garbage": lambda card: b"{ no card",
    "binary": lambda card: bytes(range(128, 256)),
    "a list": lambda card: b"[1, 2]",
    "a key too many": lambda card: json.dumps(card | {"colour": "red"}).encode(),
    "a key missing": lambda card: json.dumps({"network": card["network"]}).encode(),
    "unknown network": lambda card: json.dumps(card | {"network": "alexnet"}).encode(),
    "number for network": lambda card: json.dumps(card | {"network": [1]}).encode(),
    "other classes": lambda card: json.dumps(card | {"classes": ["a"], "palette": [[1, 2, 3]]}).encode(),
}
WRONG_CARDS = {
    "short palette": {"palette": [[1, 2, 3]]},
    "colours of two numbers": {"palette": [[1, 2]] * 5},
    "numbers for classes": {"classes": [1, 2, 3, 4, 5]},
    "text for the tile": {"tile": "large"},
    "tile of 0": {"tile": 0},
}


def damaged(model: Path, folder: Path, weights: bytes | None, card: bytes | None) -> Path:
    """Copy a model, with another content of its files."""
    path = folder / "damaged.safetensors"
    path.write_bytes(model.read_bytes() if weights is None else weights)
    path.with_suffix(".json").write_bytes(model.with_suffix(".json").read_bytes() if card is None else card)
    return path


@pytest.mark.parametrize("kind", DAMAGED_WEIGHTS)
def test_damaged_weights_are_refused(segment, model: Path, photo: Path, tmp_path: Path, kind: str) -> None:
    path = damaged(model, tmp_path, DAMAGED_WEIGHTS[kind](model.read_bytes()), None)
    assert str(path) in refused(segment(photo, "--model", path))
    assert str(path) in refused(run("show", path))


@pytest.mark.parametrize("kind", DAMAGED_CARDS)
def test_damaged_cards_are_refused(segment, model: Path, photo: Path, tmp_path: Path, kind: str) -> None:
    card = json.loads(model.with_suffix(".json").read_text())
    path = damaged(model, tmp_path, None, DAMAGED_CARDS[kind](card))
    assert str(path.with_suffix("")) in refused(segment(photo, "--model", path))
    assert str(path.with_suffix("")) in refused(run("show", path))


@pytest.mark.parametrize("kind", WRONG_CARDS)
def test_cards_with_wrong_values_are_refused(segment, model, photo: Path, tmp_path: Path, kind: str) -> None:
    card = json.loads(model.with_suffix(".json").read_text())
    path = damaged(model, tmp_path, None, json.dumps(card | WRONG_CARDS[kind]).encode())
    assert str(path.with_suffix("")) in refused(segment(photo, "--model", path))


def test_a_model_without_its_card_is_refused(
    segment: Segment, model: Path, photo: Path, tmp_path: Path
) -> None:
    path = damaged(model, tmp_path, None, None)
    path.with_suffix(".json").unlink()
    assert "damaged.json is missing" in refused(segment(photo, "--model", path))


@pytest.mark.parametrize("out", ["file", "file/below", "/proc/foveal"])
def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(
    segment: Segment, photo: Path, tmp_path: Path, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foveal.inference.runner.Runner.__call__", lambda *arguments: pytest.fail("it ran"))
    (tmp_path / "file").touch()
    assert "cannot be written" in refused(segment(photo, "--out", tmp_path / out))


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_forbidden_folder_is_refused(segment: Segment, photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "forbidden"
    folder.mkdir(0o500)
    assert "Permission denied" in refused(segment(photo, "--out", folder))


def test_good_images_of_a_folder_are_segmented_all_the_same(segment: Segment, tmp_path: Path) -> None:
    for name in ("a.png", "z.png"):
        picture(HEIGHT, WIDTH).save(tmp_path / name)
    for name, content in BAD_FILES.items():
        (tmp_path / name).write_bytes(content)
    result = segment(tmp_path, "--json")
    assert result.exit_code == 2
    assert [Path(row["image"]).name for row in json.loads(result.stdout)] == ["a.png", "z.png"]
    lines = result.stderr.splitlines()
    assert len(lines) == len(BAD_FILES) + 1
    assert all(any(name in line for line in lines) for name in BAD_FILES)
    assert lines[-1].endswith(f"{len(BAD_FILES)} of {len(BAD_FILES) + 2} inputs could not be segmented")


def test_a_folder_of_bad_images_gives_an_empty_list(segment: Segment, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    result = segment(tmp_path, "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (2, [])


def test_a_disk_that_fills_up_is_a_sentence(
    segment: Segment, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("foveal.reporting.pictures.save_labels", full)
    assert "No space left on device" in refused(segment(photo))


def test_an_image_that_does_not_fit_into_memory_is_a_sentence(
    segment: Segment, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr("foveal.inference.runner.Runner.__call__", full)
    assert "too large for the memory" in refused(segment(photo))


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "7", '{"levels": [[[0]]], "tile": 32, "size": [64, 64]}', "\x00"]
)
def test_bad_plans_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(content)
    refused(run("show", path))


def test_bad_recipes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("seed = 'x'\n[train]\nstep = 3\n")
    result = run("show", path)
    assert result.exit_code == 2
    assert "did you mean 'steps'" in result.stderr
    assert "no readable recipe" in refused(run("show", tmp_path / "none.toml"))


@pytest.mark.parametrize("size", ["", "x", "12", "0x5", "-1x5", "²x3", "axb", "1x2x3"])
def test_bad_sizes_are_refused(size: str) -> None:
    assert "size is" in refused(run("check", "swiftnet_nano", "--size", size))


def test_networks_that_do_not_exist_are_refused() -> None:
    assert "gives no network" in refused(run("check", "no.such:thing"))
    assert "no model" in refused(run("check", "swiftnet"))


def test_defects_of_the_program_are_not_hidden(segment: Segment, photo: Path, monkeypatch) -> None:
    def broken(*arguments: object) -> None:
        raise KeyError("a defect")

    monkeypatch.setattr("foveal.reporting.pictures.save_pictures", broken)
    assert isinstance(segment(photo).exception, KeyError)


def test_the_traceback_is_there_on_request(segment: Segment, photo: Path, monkeypatch) -> None:
    monkeypatch.setenv("FOVEAL_DEBUG", "1")
    assert isinstance(segment(photo, "--budget", 7).exception, ValueError)
