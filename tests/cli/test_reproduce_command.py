from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from commands import parsed, refused, run
from foveal.cli import reproduce as command
from foveal.cli.reproduce import find_checkout
from foveal.data.synthetic import CLASSES, PALETTE
from foveal.hub.card import Card
from foveal.hub.checkpoint import save_model
from foveal.policies import PolicyNet
from samples import nano, write_folder
from studies.segblocks import EXPERIMENTS, Study
from studies.segblocks import record as record_file
from studies.segblocks.experiment import Experiment
from studies.segblocks.networks import Networks


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """Options that name a data set, a network and a model with a policy."""
    folder = tmp_path_factory.mktemp("given")
    data, net = write_folder(folder / "data", 2, (128, 128)), PolicyNet(64, 8, 4)
    training = {"recipe": {"method": {"target": 0.4}}}
    dense = save_model(nano(len(CLASSES)), Card("swiftnet_nano", CLASSES, PALETTE), folder / "dense")
    card = Card("swiftnet_nano", CLASSES, PALETTE, training=training)
    ours = save_model(nano(len(CLASSES)), card, folder / "ours", parts={"policy": net})
    (data / "classes.json").write_text(json.dumps({"classes": CLASSES, "palette": PALETTE}))
    return ("--data", f"folder:{data}", "--model", dense, "--segblocks", ours)


def test_experiments_are_written_once_and_json_says_which(given: tuple[object, ...], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    words = (
        "reproduce",
        "segblocks",
        *given,
        "--quick",
        "--out",
        tmp_path,
        "--parts",
        "classes,panels",
        "--json",
    )
    first = parsed(run(*words))
    assert (first["written"], first["kept"], first["failed"]) == (["classes", "panels"], [], {})
    for name in ("classes.json", "classes.md", "classes.png", "panels.png", "README.md"):
        assert (tmp_path / name).is_file()
    rows = json.loads((tmp_path / "classes.json").read_text())["rows"]
    assert [row["class"] for row in rows] == list(CLASSES)
    again = parsed(run(*words))
    assert (again["written"], again["kept"]) == ([], ["classes", "panels"])


def test_an_experiment_that_fails_gives_exit_code_1(
    given: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(networks: Networks) -> list[Any]:
        raise RuntimeError("no luck")

    monkeypatch.delenv("FOVEAL_DEBUG", raising=False)
    monkeypatch.setattr(record_file, "find_spec", lambda name: name)
    broken = Experiment("Broken", "It fails.", fail)
    monkeypatch.setitem(EXPERIMENTS, "classes", broken)
    result = run("reproduce", "segblocks", *given, "--out", tmp_path, "--parts", "classes")
    assert result.exit_code == 1
    assert "classes failed: RuntimeError: no luck" in result.stderr


def test_without_matplotlib_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_file, "find_spec", lambda name: None)
    sentence = refused(run("reproduce", "segblocks", "--quick", "--out", tmp_path))
    assert "pip install 'foveal'" in sentence


def test_settings_reach_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from studies import segblocks as package

    asked: list[Study] = []

    def note(study: Study, *rest: Any) -> package.Outcome:
        asked.append(study)
        return package.Outcome()

    monkeypatch.setattr(package, "reproduce", note)
    monkeypatch.chdir(tmp_path)
    run("reproduce", "segblocks", "--quick", "--scale", "64x96", "--limit", 3, "--seeds", 2)
    run("reproduce", "segblocks", "--model", "a", "b", "--segblocks", "c", "d", "--steps", 9)
    quick, full = asked
    assert (quick.scale, quick.limit, quick.seeds, quick.quick, quick.data) == ((64, 96), 3, 2, True, "")
    assert quick.models == () and quick.out == Path("runs/reproduce_segblocks_quick")
    assert (full.models, full.segblocks, full.policy_steps) == (("a", "b"), ("c", "d"), 9)
    assert full.limit is None and full.out == Path("runs/reproduce_segblocks")


def make_study(place: Path) -> Path:
    """Make an empty study of the paper in a folder."""
    folder = place / "studies" / "segblocks"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    return place


def test_studies_are_found_beside_the_sources_then_in_the_working_directory(tmp_path: Path) -> None:
    package, working = tmp_path / "checkout" / "src" / "foveal", make_study(tmp_path / "working")
    assert find_checkout("segblocks", package, working) == working
    checkout = make_study(tmp_path / "checkout")
    assert find_checkout("segblocks", package, working) == checkout


def test_a_wheel_without_studies_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "PACKAGE", tmp_path / "site-packages" / "foveal")
    monkeypatch.chdir(tmp_path)
    result = run("reproduce", "segblocks", "--quick")
    assert result.exit_code == 2
    (sentence,) = result.stderr.strip().splitlines()
    assert "studies are part of the repository and not of the wheel" in sentence
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("segblock",), "did you mean 'segblocks'"),
        (("segblocks", "--parts", "maintable"), "did you mean 'main_table'"),
        (("segblocks", "--parts", ","), "no experiment is named"),
        (("segblocks", "--scale", "64"), "size is '64'"),
        (("segblocks", "--data", "camvid:/nowhere"), "/nowhere"),
        (("segblocks", "--model", "nothing"), "no model 'nothing'"),
        (("segblocks", "--segblocks", "camvid_rn18"), "not trained with a learned policy"),
    ],
)
def test_bad_input_is_one_sentence(words: tuple[object, ...], message: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    if "--data" not in words:
        data = write_folder(tmp_path / "data", 1, (64, 96))
        (data / "classes.json").write_text(json.dumps({"classes": CLASSES, "palette": PALETTE}))
        words = (*words, "--data", f"folder:{data}")
    result = run("reproduce", *words, "--out", tmp_path / "out")
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert message in lines[-1] and lines[-1].startswith("foveal: ")
