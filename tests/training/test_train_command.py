"""`foveal train` as people run it: what it says, what a kill leaves, and what divergence does."""

from __future__ import annotations

import json
import random
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

import forked
from commands import parsed, refused, run, small_recipe
from forked import Forked
from foveal.hub.checkpoint import load_model
from foveal.training.loop import CHECKPOINT, resumed_step

STEPS = 8
LONG = 24
"""Steps of a run that is to be killed: it must still be going when a busy machine comes to it."""


@pytest.fixture
def long_recipe(recipe: Path) -> Path:
    path = recipe.with_name("long.toml")
    path.write_text(recipe.read_text().replace(f"steps = {STEPS}", f"steps = {LONG}"))
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return small_recipe(tmp_path, f"steps = {STEPS}, average = 0.5, save_every = 1")


# Kills


def start(recipe: Path, folder: Path) -> Forked:
    """Start a run in a process of its own."""
    words = "train", recipe, "--run", folder, "--resume", "--threads", 1
    return forked.start(recipe.parent, forked.command, *words)


def wait_for(process: Forked, folder: Path, step: int, saving: bool) -> None:
    """Wait until a step was logged or, if so, until the next checkpoint is being written."""
    log, part = folder / "log.jsonl", folder / ".checkpoint.part.safetensors"
    while process.returncode is None:
        if log.exists() and log.read_bytes().count(b"\n") > step and (part.exists() or not saving):
            return
        time.sleep(0.001)


@pytest.mark.timeout(600)
def test_a_command_that_is_killed_again_and_again_ends_like_one_that_is_not(
    long_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One kill during a step, one while a checkpoint is written, one at any time after that."""
    recipe = long_recipe
    chance, killed, seen = random.Random(4), tmp_path / "killed", []
    for step, saving in ((1, False), (3, True), (5, False)):
        process = start(recipe, killed)
        try:
            wait_for(process, killed, step, saving)
            time.sleep(0 if saving else chance.uniform(0, 0.03))
        finally:
            process.kill()
        assert process.returncode == -signal.SIGKILL, process.stderr
        seen.append(resumed_step(killed))
    assert seen == sorted(seen)
    assert seen[0] >= 1 and seen[-1] < LONG
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setattr(sys, "argv", ["foveal", "train", str(recipe), "--resume"])
    for folder in (killed, tmp_path / "whole"):
        assert run("train", recipe, "--run", folder, "--resume", "--threads", 1).exit_code == 0
    for name in ("model.safetensors", CHECKPOINT):
        assert (killed / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert (killed / "log.jsonl").read_text() == (tmp_path / "whole" / "log.jsonl").read_text()
    assert not list(killed.glob(".*part*"))
    card = load_model(killed).card
    assert card.command == f"foveal train {recipe}"  # a run that was resumed is the same run
    assert card.machine


# Divergence


def test_a_run_that_diverges_stops_with_a_sentence_and_goes_on_from_its_last_good_checkpoint(
    recipe: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    wild = ("--set", "train.learning_rate=1e6", "--set", "train.save_every=4")
    assert run("train", recipe, "--run", folder, "--set", "train.steps=4").exit_code == 0
    good = (folder / CHECKPOINT).read_bytes()
    sentence = run("train", recipe, "--run", folder, "--resume", *wild)
    assert sentence.exit_code == 2
    last = sentence.stderr.strip().splitlines()[-1]
    found = r"the loss is nan \(segmentation\)|\d+ weights or moments are not finite, such as \S+"
    assert re.match(rf"foveal: step \d: ({found}); ", last)
    assert f"{folder / CHECKPOINT} of step 4 is kept; give a lower train.learning_rate" in last
    assert (folder / CHECKPOINT).read_bytes() == good
    result = parsed(run("train", recipe, "--run", folder, "--resume", "--json"))
    assert result["resumed_from"] == 4
    assert all(bool(value.isfinite().all()) for value in load_file(folder / CHECKPOINT).values())


# What it says


def test_a_run_says_what_it_does_and_what_came_of_it(recipe: Path, tmp_path: Path) -> None:
    words = ("train", recipe, "--run", tmp_path / "run", "--set", "train.evaluate=val")
    result = run(*words)
    assert result.exit_code == 0, result.output
    begin = result.stderr.splitlines()[:6]
    assert begin[0].startswith("network  swiftnet_nano, 0.57 M parameters")
    assert begin[1].endswith("train: 3 images, 11 classes")
    assert begin[2:5] == [
        "method   dense",
        "length   8 steps of 2 images, 5.3 epochs",
        "device   cpu, 1 process, seed 0",
    ]
    assert begin[5] == f"run      {tmp_path / 'run'}, from step 0"
    lines = result.stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:5]] == [
        ["start", "0"],
        ["quarter", "1"],
        ["half", "3"],
        ["end", "7"],
    ]
    assert any(line.startswith("dense ") and " 1.000 " in line for line in lines)
    assert lines[-1].startswith(f"wrote {tmp_path / 'run' / 'model.safetensors'}")


def test_json_has_the_same(recipe: Path, tmp_path: Path) -> None:
    adaptive = ("method.name=segblocks", "method.tiles=[32]", "train.evaluate=val", "data.crop=[64, 96]")
    options = [word for setting in adaptive for word in ("--set", setting)]
    result = parsed(run("train", recipe, "--run", tmp_path / "run", "--json", *options))
    assert (result["images"], result["processes"], result["method"]) == (3, 1, "segblocks random")
    assert [row["at"] for row in result["losses"]] == ["start", "quarter", "half", "end"]
    assert {"dense", "mixed", "learning_rate", "step"} <= set(result["losses"][0])
    assert [row["method"] for row in result["evaluation"]] == ["dense", "segblocks"]
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert result["losses"][-1]["dense"] == pytest.approx(rows[-1]["dense"])


def test_a_split_that_is_not_there_is_refused_before_training(recipe: Path, tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).rename(tmp_path / "moved")
        (tmp_path / "data" / kind).mkdir()
        (tmp_path / "moved").rename(tmp_path / "data" / kind / "train")
    sentence = refused(run("train", recipe, "--run", tmp_path / "run", "--set", "train.evaluate=val"))
    assert "has no split 'val'" in sentence
    assert not (tmp_path / "run").exists()
