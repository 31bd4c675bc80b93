"""`foveal adapt`, and what `segment` and `evaluate` do with what it found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from commands import Result, parsed, refused, run
from foveal.calibration.configure import configure
from foveal.calibration.engine import find_engine
from foveal.calibration.profile import find_risk, load_profile
from foveal.calibration.risk.drawn import draw_number
from foveal.cost import Timing
from foveal.data.dataset import default_palette
from foveal.data.image import read_image
from foveal.data.synthetic import CLASSES
from foveal.hub.card import Card
from foveal.hub.checkpoint import load_model, save_model
from foveal.inference.runner import Runner
from foveal.methods import Refinement
from samples import error_of, lively, nano, write_folder

SIZE = (64, 96)


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """Choose no algorithms, take every time to be 1 ms, and leave the allocator alone."""

    def alternate(runs: dict[str, Any], repeat: int, warmup: int) -> dict[str, Timing]:
        return {name: Timing((1.0,)) for name in runs}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("foveal.calibration.adapt.tuning", nullcontext)
        patch.setattr("foveal.calibration.risk.measure.tuning", nullcontext)
        patch.setattr("foveal.calibration.risk.measure.QUANTILES", (0.0, 0.5, 0.8, 1.0))
        patch.setattr("foveal.calibration.adapt.alternate", alternate)
        patch.setattr("foveal.training.distillation.CROP", 64)
        patch.setattr("foveal.training.distillation.BATCH", 1)
        patch.setattr("foveal.cost.keep_memory", lambda: False)
        yield


@pytest.fixture(autouse=True)
def cache(quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "profile"


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("streets"), 6, SIZE)


@pytest.fixture(scope="module")
def model(streets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was not adapted."""
    torch.manual_seed(0)
    network = lively(nano(len(CLASSES)), read_image(streets / "images" / "0.png"))
    card = Card("swiftnet_nano", CLASSES, default_palette(len(CLASSES)))
    return save_model(network, card, tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture(scope="module")
def outcome(model: Path, streets: Path, quick: None, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """What the command said about a copy of the model; masks that cannot be read lie beside the images."""
    folder = tmp_path_factory.mktemp("adapted")
    for suffix in (".safetensors", ".json"):
        shutil.copy(model.with_suffix(suffix), folder)
    shutil.copytree(streets / "images", folder / "data" / "images")
    for image in (folder / "data" / "images").iterdir():
        mask = folder / "data" / "masks" / image.name
        mask.parent.mkdir(exist_ok=True)
        mask.write_text("no mask")
    words = ("--images", f"folder:{folder / 'data'}", "--policy", "weighted_entropy", "--json")
    return run("adapt", folder / "tiny.safetensors", *words)


@pytest.fixture
def adapted(outcome: Result) -> Path:
    return Path(parsed(outcome)["profile"]).parent / "tiny.safetensors"


def segment(model: Path, streets: Path, *words: object) -> Result:
    return run("segment", streets / "images" / "1.png", "--model", model, "--no-keep-memory", *words)


def test_what_is_found_lies_beside_the_model_and_no_label_was_read(outcome: Result, adapted: Path) -> None:
    row = parsed(outcome)
    assert Path(row["profile"]) == adapted.with_suffix(".profile.json")
    profile = load_profile(load_model(adapted))
    assert (row["images"], profile.images) == (6, 6)
    assert (row["coarse_level"], row["tile"]) == (profile.config.coarse_level, 32)
    assert row["policy"] == "weighted_entropy"
    assert {r["method"] for r in row["curve"]} == {"dense", "coarse_to_fine", "random", "uniform"}


def test_people_get_a_table(model: Path, streets: Path, tmp_path: Path) -> None:
    words = ("--limit", 2, "--coarse-level", 1, "--out", tmp_path / "out")
    result = run("adapt", model, "--images", streets / "images", *words)
    assert result.exit_code == 0, result.output
    for words in ("coarse to fine", "first pass at level 1, tile 32 px", "risk 1.0%", "images adapted"):
        assert words in result.stdout
    assert load_profile(load_model(tmp_path / "out")).images == 2
    assert not model.with_suffix(".profile.json").exists()


def test_settings_are_what_was_found(model: Path, adapted: Path) -> None:
    loaded, plain = load_model(adapted), load_model(model)
    profile = load_profile(loaded).config
    assert configure(loaded, "coarse_to_fine", 0.4, {}) == profile
    other = configure(loaded, "coarse_to_fine", 0.4, {"policy": "margin"})
    assert (other.policy, other.level_gain) == ("margin", Refinement.level_gain)
    other = configure(loaded, "coarse_to_fine", 0.4, {"coarse_level": 3})
    assert (other.coarse_level, other.level_gain) == (3, Refinement.level_gain)
    assert configure(loaded, "segblocks", 0.4, {}).policy == "entropy"
    assert configure(plain, "coarse_to_fine", 0.4, {}).policy == "weighted_entropy"
    message = error_of(lambda: configure(plain, "coarse_to_fine", 0.4, {"max_level": 2}))
    assert message.startswith("method coarse_to_fine has no setting max_level; it has policy, tile")


def test_a_risk_is_kept_estimated_and_reported(adapted: Path, streets: Path) -> None:
    row = parsed(segment(adapted, streets, "--risk", 0.9, "--json"))
    setting = find_risk(load_model(adapted), 0.9).setting
    assert not setting.dense
    assert (row["risk"], row["setting"]["threshold"]) == (0.9, setting.threshold)
    assert row["setting"]["bound"] <= 0.9
    assert 0 <= row["estimate"] <= 1
    assert row["dense"] is False and 0 < row["work"] <= 1
    text = segment(adapted, streets, "--risk", 0.9).stdout
    assert "90.00% allowed on average, kept at " in text
    assert "balanced disagreement" in text
    row = parsed(segment(adapted, streets, "--budget", 0.5, "--method", "coarse_to_fine", "--json"))
    assert (row["risk"], row["estimate"], row["setting"]) == (None, None, None)


def test_a_risk_that_only_dense_keeps_runs_dense(adapted: Path, streets: Path) -> None:
    row = parsed(segment(adapted, streets, "--risk", 1e-6, "--json"))
    assert (row["dense"], row["estimate"]) == (True, 0)
    assert row["reason"] == "nothing that costs less keeps the risk"


def test_a_small_risk_adapts_the_images_whose_hash_is_below_the_share(adapted: Path, streets: Path) -> None:
    profile = load_profile(load_model(adapted))
    files = sorted((streets / "images").iterdir())
    numbers = sorted(draw_number(read_image(file), profile.weights) for file in files)
    middle = (numbers[2] + numbers[3]) / 2
    mixed = profile.risk.choose(1e-3)
    risk = middle * mixed.bound / mixed.share
    kept = profile.risk.choose(risk)
    assert kept.index == mixed.index and kept.share == pytest.approx(middle, abs=1e-4)
    dense = []
    for file in files:
        row = parsed(run("segment", file, "--model", adapted, "--no-keep-memory", "--risk", risk, "--json"))
        assert row["setting"]["share"] == kept.share
        assert row["dense"] is bool(row["reason"]) is (row["work"] == 1.0)
        assert not row["dense"] or row["estimate"] == 0
        assert not row["dense"] or "of the images that keep the risk" in row["reason"]
        dense.append(row["dense"])
    assert sum(dense) == 3
    rows = parsed(evaluate(adapted, streets, "--risk", risk, "--method", "coarse_to_fine", "--json"))
    assert (rows[1]["work"] == 1) is all(dense[:2])
    assert kept.work == pytest.approx(1 - kept.share * (1 - kept.adapted_work))


def test_a_risk_of_labels_reads_the_masks_and_is_remembered(
    model: Path, streets: Path, tmp_path: Path
) -> None:
    words = ("--policy", "weighted_entropy", "--coarse-level", 1, "--out", tmp_path / "out", "--json")
    row = parsed(run("adapt", model, "--images", f"folder:{streets}", "--risk-of", "labels", *words))
    assert (row["risk_of"], row["chosen_on"], row["calibrated_on"]) == ("labels", 2, 4)
    profile = load_profile(load_model(tmp_path / "out"))
    assert profile.risk_of == "labels"
    row = parsed(segment(tmp_path / "out", streets, "--risk", 0.9, "--json"))
    assert row["setting"]["risk_of"] == "labels"
    text = segment(tmp_path / "out", streets, "--risk", 0.9).stdout
    assert "balanced error beyond dense" in text
    words = ("--risk", 0.9, "--method", "coarse_to_fine")
    rows = parsed(evaluate(tmp_path / "out", streets, *words, "--json"))
    assert "excess_error" not in rows[0]
    assert 0 <= rows[1]["excess_error"] <= 1
    assert "excess error" in evaluate(tmp_path / "out", streets, *words).stdout


def test_an_image_without_room_for_tiles_is_dense_under_a_risk(adapted: Path) -> None:
    loaded = load_model(adapted)
    result = Runner(find_engine(loaded), "coarse_to_fine", find_risk(loaded, 0.9))(torch.rand(3, 9, 7))
    assert "small for tiles of 32 px" in result.reason
    assert result.estimate == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--risk", 0), "risk is 0; give a share of disagreement above 0"),
        (("--risk", 2), "risk is 2"),
        (("--risk", "nan"), "risk is nan"),
        (("--risk", 0.5, "--budget", 0.4), "--budget 0.4 and --risk 0.5 exclude one another"),
        (("--risk", 0.5, "--latency", 40), "--latency 40 and --risk 0.5 exclude one another"),
        (("--risk", 0.5, "--tile", 64, "--policy", "margin"), "leave --tile, --policy out"),
    ],
)
def test_what_a_risk_cannot_be_is_one_sentence(adapted: Path, streets: Path, words, message: str) -> None:
    assert message in refused(segment(adapted, streets, *words))


def test_a_model_that_was_not_adapted_is_told_the_command(model: Path, streets: Path) -> None:
    assert refused(segment(model, streets, "--risk", 0.5)) == (
        f"tiny has not been adapted yet; run foveal adapt {model} --images FOLDER (no labels needed)"
    )


def evaluate(model: Path, streets: Path, *words: object) -> Result:
    return run("evaluate", model, "--data", f"folder:{streets}", "--limit", 2, "--timed", 0, *words)


def test_a_risk_is_evaluated_beside_controls_of_its_work(adapted: Path, streets: Path) -> None:
    rows = parsed(
        evaluate(adapted, streets, "--risk", 0.9, "--method", "coarse_to_fine", "--baseline", "--json")
    )
    assert [row["method"] for row in rows] == ["dense", "coarse_to_fine", "segblocks", "static"]
    kept = rows[1]
    assert kept["risk"] == 0.9 and 0 <= kept["disagreement"] <= 1
    work = round(find_risk(load_model(adapted), 0.9).setting.work, 4)
    assert [row["budget"] for row in rows[2:]] == [work, work]
    assert "risk" not in rows[2] and 0 <= rows[2]["disagreement"] <= 1
    several = parsed(
        evaluate(adapted, streets, "--method", "coarse_to_fine", "--risk", 0.9, 0.95, "--json", "--timed", 0)
    )
    assert [row["risk"] for row in several[1:]] == [0.9, 0.95]


def test_controls_have_the_same_budgets(adapted: Path, streets: Path) -> None:
    words = ("--budget", 0.5, 0.8, "--method", "coarse_to_fine", "--baseline")
    rows = parsed(evaluate(adapted, streets, *words, "--json"))
    assert [(row["method"], row["policy"], row["budget"]) for row in rows[1:]] == [
        ("coarse_to_fine", "weighted_entropy", 0.5),
        ("coarse_to_fine", "weighted_entropy", 0.8),
        ("segblocks", "random", 0.5),
        ("segblocks", "random", 0.8),
        ("static", "reduced to 0.71", 0.5),
        ("static", "reduced to 0.89", 0.8),
    ]
    text = evaluate(adapted, streets, "--risk", 0.9, "--method", "coarse_to_fine").stdout
    assert "disagreement" in text and "90.00%" in text


def test_evaluating_without_a_fit_needs_none(model: Path, streets: Path) -> None:
    rows = parsed(evaluate(model, streets, "--budget", 0.6, "--json"))
    assert all("disagreement" not in row for row in rows)
    assert "--risk is kept by --method coarse_to_fine" in refused(evaluate(model, streets, "--risk", 0.5))
    asked = ("--method", "coarse_to_fine", "--risk")
    assert "run foveal adapt" in refused(evaluate(model, streets, *asked, 0.5))


def test_steps_write_a_model_that_can_be_used_and_go_on(model: Path, streets: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = (
        "adapt",
        model,
        "--images",
        streets / "images",
        "--limit",
        1,
        "--coarse-level",
        1,
        "--out",
        out,
        "--json",
    )
    result = run(*words, "--steps", 2)
    row = parsed(result)
    assert "self-distillation, 2 steps on 1 images, from step 0" in result.stderr
    assert "step 2/2" in result.stderr
    assert Path(row["profile"]) == out / "model.profile.json"
    before, after = load_model(model), load_model(out)
    assert not torch.equal(*(next(m.network.parameters()) for m in (before, after)))
    assert load_profile(after).config.coarse_level == 1
    assert (
        parsed(segment(out, streets, "--budget", 0.6, "--method", "coarse_to_fine", "--json"))["work"] <= 0.6
    )
    again = run(*words, "--steps", 2)
    assert "from step 2" in again.stderr
    assert json.loads(again.stdout)["curve"] == row["curve"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--steps", 2), "--steps changes the weights; give --out FOLDER"),
        (("--risk-of", "luck"), "--risk-of is luck; give dense, or labels for a data set with masks"),
        (("--risk-of", "labels"), "--risk-of labels needs masks, and --images is "),
        (("--images", "none"), "none"),
        (("--images", "folder:none"), "none"),
        (("--images", "camvid:none"), "none"),
        (("--policy", "detail"), "given detail"),
        (("--max-level", 2), "foveal adapt finds --max-level by itself"),
        (("--coarse-level", 0), "coarse_level is 0"),
        (("--tile", 33), "give a multiple of 32"),
    ],
)
def test_what_cannot_be_adapted_is_one_sentence(model: Path, streets: Path, words, message: str) -> None:
    images = () if "--images" in words else ("--images", streets / "images")
    assert message in refused(run("adapt", model, *images, *words))


def test_adapt_names_models_that_do_not_exist(streets: Path) -> None:
    assert "no model 'nothing'" in refused(run("adapt", "nothing", "--images", streets))
    assert error_of(lambda: load_profile(load_model("nothing"))).startswith("no model")
