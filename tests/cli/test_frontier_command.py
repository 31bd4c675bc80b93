from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from commands import Result, parsed, refused, run
from foveal.benchmark import runtimes as module
from foveal.data.dataset import default_palette
from foveal.data.synthetic import CLASSES
from foveal.hub.card import Card
from foveal.hub.checkpoint import save_model
from samples import nano, write_folder

SMALL = ("--scales", 1, 0.5, "--budget", 0.6, "--methods", "segblocks", "--timed", 1, "--repeat", 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("frontier")
    card = Card("swiftnet_nano", tuple(CLASSES), default_palette(len(CLASSES)))
    save_model(nano(len(CLASSES)), card, root / "small.safetensors")
    write_folder(root, 2)
    return root


@pytest.fixture
def command(folder: Path):
    def frontier(*arguments: object, model: object = None) -> Result:
        data = f"folder:{folder}"
        return run("frontier", model or folder / "small.safetensors", "--data", data, *SMALL, *arguments)

    return frontier


def test_rows_table_picture_and_sentences(command, tmp_path: Path) -> None:
    words = ("--runtimes", "torch,foveal", "--precision", "f32", "--out", tmp_path / "out")
    result = command(*words)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out" / "frontier.json").read_text())
    assert [(row["kind"], row["name"], row["setting"]) for row in found["rows"]] == [
        *(("static", "torch", 1.0), ("static", "torch", 0.5)),
        *(("static", "foveal", 1.0), ("static", "foveal", 0.5), ("adaptive", "segblocks", 0.6)),
    ]
    assert {"machine", "commit", "command", "versions", "comparison", "left_out"} <= set(found)
    assert (found["images"], found["size"], found["calibration"]) == (2, [64, 96], 0)
    for words in (found["at_equal_quality"], found["at_equal_time"], "segblocks", "torch", "mIoU"):
        assert words in result.stdout
    with Image.open(tmp_path / "out" / "frontier.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 500


def test_adaptive_methods_may_begin_with_a_smaller_image(command) -> None:
    words = ("--runtimes", "foveal", "--precision", "f32", "--base-scales", 1, 0.75, "--budget", 0.5)
    words = (*words, "--methods", "dense")
    rows = [row for row in parsed(command(*words, "--json"))["rows"] if row["kind"] == "adaptive"]
    found = [(row["name"], row["setting"], "scale 0.75" in row["settings"]) for row in rows]
    ours, dense = (
        [row[1:] for row in found if row[0] == "segblocks"],
        [row for row in found if row[0] == "dense"],
    )
    assert ours == [(0.6, False), (0.5, False), (0.5, True)]  # 0.6 pays for all of the image at 0.75
    assert len(dense) == 1 and not dense[0][2]


def test_first_passes_of_several_levels_are_rows_of_their_own(command) -> None:
    words = ("--runtimes", "foveal", "--precision", "f32", "--budget", 0.9, "--coarse-levels", 1, 2)
    result = command(*words, "--methods", "dense", "--json")
    rows = [row for row in parsed(result)["rows"] if (row["kind"], row["name"]) == ("adaptive", "segblocks")]
    found = [(row["setting"], row["settings"].count("coarse_level 1")) for row in rows]
    assert found == [(0.6, 1), (0.6, 0), (0.9, 1), (0.9, 0)]
    assert sum(row["name"] == "dense" for row in parsed(result)["rows"]) == 1


def test_what_is_not_available_is_named(command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    result = command("--limit", 1, "--json", "--precision", "f32", "int8", "--runtimes", "torch,foveal")
    found = parsed(result)
    assert "the runtime 'torch' is not available in int8" in result.stderr
    ours = [(row["name"], row["precision"]) for row in found["rows"] if row["kind"] == "adaptive"]
    assert ours == [("segblocks", "f32"), ("segblocks", "int8")]  # compiled programs
    assert "has no split 'train'" in result.stderr or found["calibration"] == 2
    assert found["images"] == 1
    assert [sentence.split(":")[0] for sentence in found["left_out"]] == [
        "the runtime 'torch' is not available in int8"
    ]
    static = [(row["name"], row["precision"]) for row in found["rows"] if row["setting"] == 1]
    assert static == [("torch", "f32"), ("foveal", "f32"), ("foveal", "int8")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--runtimes", "openvin"), "did you mean 'openvino'"),
        (("--precision", "f16"), "no precision named 'f16'"),
        (("--scales", 2), "--scales is 2; give shares above 0 and at most 1"),
        (("--budget", 0), "--budget is 0"),
        (("--base-scales", 0), "--base-scales is 0"),
        (("--methods", "segblock"), "no method named 'segblock'"),
        (("--limit", 0), "--limit"),
    ],
)
def test_bad_input_is_one_sentence(command, words: tuple[object, ...], message: str) -> None:
    assert message in refused(command("--precision", "f32", *words))


def test_a_model_of_other_classes_is_refused(command, tmp_path: Path) -> None:
    card = Card("swiftnet_nano", ("soil", "crop"), default_palette(2))
    model = save_model(nano(2), card, tmp_path / "weeds.safetensors")
    assert "weeds knows 2 classes" in refused(command("--precision", "f32", model=model))
