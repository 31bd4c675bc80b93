"""`foveal tune` from a saved model to what `segment`, `evaluate` and Python make of what it found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import foveal
from commands import parsed, refused, run
from foveal.data.image import save_image
from stripes import CLASSES, StripeNetwork, Stripes, scene

OPTIONS = ("--budgets", 0.1, 0.25, "--scales", 1, 0.5, "--first", 2, "--timed", 0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stripes")
    for folder in ("images", "masks"):
        (root / folder / "val").mkdir(parents=True)
    for number, (image, labels) in enumerate(Stripes(4).items):
        save_image(image, root / "images" / "val" / f"{number}.png")
        Image.fromarray(labels.numpy()).save(root / "masks" / "val" / f"{number}.png")
    (root / "classes.json").write_text(
        json.dumps({"classes": list(CLASSES), "palette": [[0] * 3, [255] * 3]})
    )
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "striped"
    made = foveal.adapt(StripeNetwork(), classes=CLASSES, tile=16, source="stripes:StripeNetwork")
    made.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def found(model: Path, data: Path) -> dict[str, Any]:
    call = ("tune", model, "--trust-source", "--data", f"folder:{data}", *OPTIONS)
    return dict(parsed(run(*call, "--json")))


def test_the_result_says_where_the_network_sees_best(found: dict[str, Any], model: Path) -> None:
    assert found["images"] == 4 and found["size"] == [128, 192]
    assert "sees best at scale 0.5" in found["conclusions"][0]
    assert Path(found["file"]) == model / "model.tuned.json" and Path(found["file"]).is_file()
    with Image.open(found["picture"]) as picture:
        assert picture.format == "PNG" and min(picture.size) > 300
    rows = {row["title"]: row for row in found["rows"]}
    assert rows["dense, scale 0.5"]["miou"] > rows["dense"]["miou"] + 0.3
    assert all(row["ms"] is None for row in found["rows"])


def test_the_table_says_it_too(model: Path, data: Path, found: dict[str, Any]) -> None:
    result = run("tune", model, "--trust-source", "--data", f"folder:{data}", *OPTIONS)
    assert result.exit_code == 0, result.output
    for words in (
        "sees best at scale 0.5",
        "settings tried",
        "others",
        "model.tuned.json",
        "dense, scale 0.5",
    ):
        assert words in result.stdout


def test_segment_and_evaluate_use_it_and_options_win(
    found: dict[str, Any], model: Path, data: Path, tmp_path: Path
) -> None:
    image = data / "images" / "val" / "0.png"
    call = ("segment", image, "--model", model, "--trust-source", "--out", tmp_path / "out")
    row = parsed(run(*call, "--budget", 1, "--json"))
    assert row["scale"] == 0.5 and "foveal tune chose" in row["chosen"] and row["work"] < 0.26
    assert "foveal tune chose" in run(*call, "--budget", 1).stdout
    own = parsed(run(*call, "--budget", 1, "--method", "coarse_to_fine", "--scale", 1, "--json"))
    assert "chosen" not in own and own["work"] == 1
    with Image.open(tmp_path / "out" / "0_labels.png") as labels:
        assert labels.size == (192, 128)
    options = ("--split", "val", "--budget", 1, "--timed", 0, "--json")
    rows = run("evaluate", model, "--trust-source", "--data", f"folder:{data}", *options)
    dense, ours = parsed(rows)
    assert "foveal tune chose" in rows.stderr
    assert ours["miou"] > dense["miou"] + 0.3 and ours["work"] < 0.26


def test_an_adaptive_model_uses_it_and_saves_it(found: dict[str, Any], model: Path, tmp_path: Path) -> None:
    made = foveal.AdaptiveModel.from_pretrained(model, network=StripeNetwork())
    assert made.tuned is not None
    image, labels = scene(0)
    result = made(image, budget=1.0)
    assert result.scale == 0.5 and "foveal tune chose" in result.chosen
    assert float((result.labels[0] == labels).double().mean()) > 0.9
    plain = made(image, threshold=0.5)
    assert plain.scale == 1 and plain.chosen == ""
    made.save_pretrained(tmp_path / "copy")
    again = foveal.AdaptiveModel.from_pretrained(tmp_path / "copy", network=StripeNetwork())
    assert again.tuned == made.tuned
    assert torch.equal(again(image, budget=0.4).labels, made(image, budget=0.4).labels)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--split", "tst"), "tst"),
        (("--scales", 1.5), "--scales is 1.5"),
        (("--budgets", 0), "--budgets is 0"),
        (("--precision", "f16"), "--precision is f16"),
        (("--precision", "int8"), "foveal adapt"),
        (("--tiles", 10), "tile is 10"),
    ],
)
def test_bad_input_is_refused(model: Path, data: Path, words: tuple[object, ...], message: str) -> None:
    assert message in refused(run("tune", model, "--trust-source", "--data", f"folder:{data}", *words))


def test_a_scale_that_is_none_is_refused(model: Path, data: Path, tmp_path: Path) -> None:
    call = ("segment", data / "images" / "val" / "0.png", "--model", model, "--trust-source")
    assert "--scale" in refused(run(*call, "--scale", 2, "--out", tmp_path))
    assert "at scale 0.5 the cheapest plan" in refused(
        run(*call, "--scale", 0.5, "--budget", 0.01, "--always-adapt", "--out", tmp_path)
    )
