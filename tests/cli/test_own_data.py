"""One logit, and images of 1, 4 and 12 channels, from training to labels, on the command line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commands import parsed, refused, run
from foveal.data.image import read_labels
from own_data import write_own

RECIPE = """
[model]
name = "{model}"
classes = {classes}
channels = {channels}

[data]
train = "folder:{data}"
crop = [64, 64]
range = {range}

[train]
steps = 50
batch = 2
warmup = 1
learning_rate = 3e-3
average = 0.5
evaluate = "train"

[method]
name = "{method}"
"""


@dataclass(frozen=True)
class Case:
    """What is trained on what."""

    model: str
    classes: int
    channels: int
    kind: str
    method: str = "dense"
    range: tuple[float, ...] = ()


CASES = {
    "one logit": Case("swiftnet_nano", 1, 3, "png", "segblocks"),
    "grey": Case("foreign:make_grey", 2, 1, "png"),
    "four bands of floats": Case("foreign:make_bands", 1, 4, "float", range=(0, 5000)),
    "twelve bands": Case("swiftnet_nano", 0, 12, "uint16", "coarse_to_fine"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_train_evaluate_adapt_and_segment(case: Case, tmp_path: Path) -> None:
    data, path, folder = tmp_path / "data", tmp_path / "own.toml", tmp_path / "run"
    write_own(data, case.channels, case.kind)
    values = {**vars(case), "data": data, "range": list(case.range)}
    path.write_text(RECIPE.format(**values))
    trained = run("train", path, "--run", folder, "--json")
    assert "holds 0 and 255 alone: background and foreground" in trained.stderr
    assert "1 of 4 images have no mask, such as 3." in trained.stderr
    row = parsed(trained)
    assert (row["images"], row["classes"]) == (3, 2)
    assert row["evaluation"][0]["miou"] > 0.55, "it has learned something"
    kept = json.loads((folder / "config.json").read_text())
    assert kept["shape"]["in_channels"] == case.channels
    assert kept["shape"]["outputs"] == (case.classes or 2)

    trust = ("--trust-source",) if ":" in case.model else ()
    measured = run(
        "evaluate", folder, "--data", f"folder:{data}", "--budget", 0.5, "--timed", 0, "--json",
        "--mask", "nodata", "--out", tmp_path / "labels", *trust,
    )  # fmt: skip
    dense, ours = parsed(measured)
    assert dense["iou"].keys() == {"background", "foreground"}
    assert ours["macs"] < dense["macs"] and dense["miou"] > 0.55
    written = {file.name: np.array(Image.open(file)) for file in (tmp_path / "labels").iterdir()}
    assert len(written) == 4, "the image without a mask is among them"
    assert all((labels[:, :32] == 255).all() and (labels[:, 32:] < 2).all() for labels in written.values())

    one = ("--coarse-level", 1, "--policy", "weighted_entropy")  # of the four settings that are tried else
    adapted = parsed(run("adapt", folder, "--images", data / "images", "--json", *one, *trust))
    assert adapted["images"] == 4 and (folder / "model.profile.json").is_file()
    images = sorted((data / "images").iterdir())
    out = ("--out", tmp_path / "out", "--json", "--no-keep-memory")
    rows = parsed(run("segment", *images, "--model", folder, "--risk", 0.9, *out, *trust))
    assert [set(row["classes"]) <= {"background", "foreground"} for row in rows] == [True] * 4
    labels = read_labels(rows[0]["files"]["mask"])
    assert labels.shape == (90, 120)


def test_a_run_of_somebody_elses_network_asks_for_trust(tmp_path: Path) -> None:
    data = write_own(tmp_path / "data", 1, "png")
    case = {"model": "foreign:make_grey", "classes": 0, "channels": 0, "method": "dense", "range": []}
    (tmp_path / "own.toml").write_text(RECIPE.format(**case, data=data))
    result = run("train", tmp_path / "own.toml", "--run", tmp_path / "run", "--set", "train.steps=1")
    assert result.exit_code == 0, result.output
    assert "see it with: foveal evaluate" in result.stdout and "--trust-source" in result.stdout
    sentence = refused(run("show", tmp_path / "run"))
    assert "foreign:make_grey, which runs code" in sentence and "--trust-source" in sentence
    assert "1 channels" in run("show", tmp_path / "run", "--trust-source").stdout
    again = ("--set", "train.steps=1", "--set", f"model.start={tmp_path / 'run'}")
    result = run("train", tmp_path / "own.toml", "--run", tmp_path / "more", *again)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("model.classes=3", "model.classes is 3 and data/train has 2 classes; give 2, or 1 for a sigmoid"),
        ("model.encoder_weights=timm:resnet18", "leave them out, or give model.start"),
        ("model.channels=5", "the network fails on an image [1, 5, 128, 128]"),
        ("data.range=[5, 2]", "range is [5.0, 2.0]; give two values, the lower one first"),
        ("model.name=foreign:missing", "foreign:missing gives no network (AttributeError"),
        ("model.start=missing.pt", "missing.pt: no weights of Strided"),
        ("data.classes=[\"a\"]", "data/train has 2 classes and 1 names are given; give 2"),
    ],
)  # fmt: skip
def test_recipes_that_do_not_fit_are_refused(override: str, says: str, tmp_path: Path) -> None:
    data = write_own(tmp_path / "data", 1, "png")
    case = {"model": "foreign:make_grey", "classes": 0, "channels": 1, "method": "dense", "range": []}
    (tmp_path / "own.toml").write_text(RECIPE.format(**case, data=data))
    result = run("train", tmp_path / "own.toml", "--run", tmp_path / "run", "--set", override)
    assert result.exit_code == 2, result.output
    assert says in result.stderr
