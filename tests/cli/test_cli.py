from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import foveal
from commands import CLASSES, Result, parsed, refused, run, small_model
from foveal.calibration.engine import find_engine
from foveal.cli import segment as segment_command
from foveal.cost import Timing, count_macs
from foveal.data.image import read_image, read_labels, save_image
from foveal.data.synthetic import street
from foveal.geometry.plan import Plan
from foveal.hub.checkpoint import load_model
from foveal.inference.runner import Runner
from foveal.methods import METHODS, DenseConfig, SegBlocksConfig
from foveal.models import MODELS
from foveal.ops import upsample
from foveal.policies import POLICIES
from foveal.reporting.plan_text import plan_text

SIZE = (96, 160)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(3):
        save_image(street(seed, SIZE)[0], folder / f"{seed}.png")
    return folder


@pytest.fixture
def segment(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    def command(*arguments: object) -> Result:
        return run("segment", *arguments, "--model", model, "--no-keep-memory")

    return command


def test_an_image_gives_labels_overlay_and_plan(segment, photos: Path) -> None:
    row = parsed(segment(photos / "0.png", "--json"))
    assert row["size"] == list(SIZE)
    assert row["image"] == str(photos / "0.png")
    assert set(row["files"]) == {"mask", "overlay", "plan"}
    assert read_labels(row["files"]["mask"]).shape == SIZE
    assert read_image(row["files"]["overlay"]).shape == (3, *SIZE)
    with Image.open(row["files"]["plan"]) as picture:
        assert picture.width >= SIZE[1]


def test_the_mask_is_what_the_python_api_says(segment, photos: Path, model: Path) -> None:
    row = parsed(segment(photos / "0.png", "--json", "--budget", 0.5))
    method = foveal.SegBlocks(load_model(model).network, foveal.create_policy("entropy", 0.5)).eval()
    with torch.no_grad():
        prediction = method(read_image(photos / "0.png")[None])
    assert torch.equal(read_labels(row["files"]["mask"]), prediction.labels[0])
    assert row["work"] == pytest.approx(float(prediction.trace.work), abs=1e-4)


def test_numbers_are_within_reason(segment, photos: Path) -> None:
    row = parsed(segment(photos / "0.png", "--json", "--budget", 0.5))
    assert 0 < row["work"] <= 0.5 + 32 * 32 / (SIZE[0] * SIZE[1])
    assert 0 < row["macs"] < row["dense_macs"]
    assert row["ms"] > 0
    assert sum(row["levels"].values()) == pytest.approx(1, abs=1e-3)
    assert set(row["classes"]) <= set(CLASSES)
    assert row["dense"] is False
    assert row["reason"] is None
    assert "dense_ms" not in row


def test_compare_measures_dense_beside(segment, photos: Path) -> None:
    row = parsed(segment(photos / "0.png", "--json", "--compare", "--repeat", 2))
    assert row["dense_ms"] > 0
    assert row["ms_p95"] >= row["ms"]
    assert 0 <= row["agreement"] <= 1


@pytest.mark.parametrize("size", [(96, 160), (33, 47), (1, 1)])
def test_dense_macs_on_no_device_are_those_that_run(model: Path, size: tuple[int, int]) -> None:
    loaded = load_model(model)
    runner = Runner(find_engine(loaded), "dense", DenseConfig())
    counted = count_macs(lambda: upsample(loaded.network(torch.rand(1, 3, *size)), size)).total
    assert runner.dense_macs(size) == counted == runner(torch.rand(3, *size)).macs


@pytest.mark.parametrize(
    "options", [("--budget", 1), ("--policy", "all"), ("--method", "dense"), ("--budget", "1.0", "--compare")]
)
def test_everything_at_full_resolution_is_the_dense_network(segment, photos: Path, options: tuple) -> None:
    row = parsed(segment(photos / "0.png", "--json", "--repeat", 1, *options))
    assert row["dense"] is True
    assert row["reason"]
    assert row["work"] == 1
    assert row["macs"] == row["dense_macs"]
    assert row["levels"] == {"0": 1.0}
    assert row.get("agreement", 1) == 1


@pytest.mark.parametrize("size", [(1, 1), (5, 70), (40, 40), (31, 1), (129, 18)])
@pytest.mark.parametrize("method", ["segblocks", "coarse_to_fine"])
def test_images_too_small_for_tiles_go_to_the_dense_network(model: Path, size, method: str) -> None:
    result = Runner(find_engine(load_model(model)), method, METHODS[method].Config())(torch.rand(3, *size))
    assert "small for tiles of 32 px" in result.reason
    assert result.labels.shape == size
    assert result.macs == result.dense_macs


def test_a_slower_method_is_said_to_be_slower(segment, photos: Path, monkeypatch) -> None:
    def alternate(runs, repeat, warmup):
        return {name: Timing((90.0 if name == "method" else 60.0,)) for name in runs}

    monkeypatch.setattr("foveal.inference.runner.Runner.timer", staticmethod(alternate))
    text = segment(photos / "0.png", "--compare").stdout
    assert "dense is faster here: 60 ms against 90 ms; use --method dense" in text


def test_the_report_draws_the_plan_and_names_the_numbers(segment, photos: Path) -> None:
    text = segment(photos / "0.png", "--compare", "--repeat", 2).stdout
    assert "0.png  160 x 96 px" in text
    for word in ("work", "MACs", "time", "agrees", "sees", "wrote", "tile 32 px"):
        assert word in text
    assert "out/0_{labels.png,overlay.jpg,plan.png}" in text


def test_a_folder_gives_one_line_each_and_a_summary(segment, photos: Path) -> None:
    lines = segment(photos).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["0.png", "1.png", "2.png", "3"]
    assert lines[-1].startswith("3 images, work 0.")


def test_several_images_give_a_list(segment, photos: Path) -> None:
    assert len(parsed(segment(photos, "--json"))) == 3
    assert len(parsed(segment(f"{photos}/[01].png", "--json"))) == 2
    assert len(parsed(segment(photos / "0.png", photos / "1.png", photos / "0.png", "--json"))) == 2


def test_quiet_prints_nothing(segment, photos: Path) -> None:
    result = segment(photos, "--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_progress_goes_to_stderr(segment, photos: Path) -> None:
    result = segment(photos, "--progress", "--json")
    assert len(json.loads(result.stdout)) == 3
    assert "/3 [" in result.stderr


def test_names_that_repeat_are_numbered_and_inputs_are_kept(segment, photos: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for name in ("a.png", "a.jpg", "A.webp", "a-2.png", "b.png", "b_labels.png"):
        save_image(street(1, SIZE)[0], inputs / name)
    before = (inputs / "b_labels.png").read_bytes()
    rows = parsed(segment(inputs, "--json", "--out", inputs))
    files = [file for row in rows for file in row["files"].values()]
    assert len({file.lower() for file in files}) == 18
    assert (inputs / "b_labels.png").read_bytes() == before
    stems = {Path(row["image"]).name: Path(row["files"]["plan"]).name for row in rows}
    assert stems["b.png"] == "b-2_plan.png"


def test_a_bad_file_does_not_stop_the_others(segment, photos: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_text("no image")
    result = segment(photos / "0.png", bad, tmp_path / "none.png", photos / "1.png", "--json")
    assert result.exit_code == 2
    assert [Path(row["image"]).name for row in json.loads(result.stdout)] == ["0.png", "1.png"]
    lines = result.stderr.splitlines()
    assert sorted(lines[:2]) == sorted(line for line in lines if "bad.jpg" in line or "none.png" in line)
    assert lines[2:] == ["foveal: 2 of 4 inputs could not be segmented"]


def test_cards_recommend_and_options_override(model: Path) -> None:
    runner = segment_command.make_runner(load_model(model), "segblocks", 0.4, {"tile": 64, "coarse_level": 1})
    assert runner.setup.config == SegBlocksConfig(0.4, "entropy", 64, 2, 1)


@pytest.mark.parametrize("method", [name for name, kind in METHODS.items() if not kind.needs])
def test_every_method_segments(segment, photos: Path, method: str) -> None:
    row = parsed(
        segment(photos / "0.png", "--json", "--method", method, "--budget", 0.5, "--compare", "--repeat", 1)
    )
    assert Path(row["files"]["plan"]).is_file()
    assert row["work"] <= 1


@pytest.mark.parametrize("policy", [name for name, entry in POLICIES.items() if entry.score is not None])
def test_every_policy_segments(segment, photos: Path, policy: str) -> None:
    assert parsed(segment(photos / "0.png", "--json", "--policy", policy, "--budget", 0.5))["work"] <= 1


def test_the_demo_is_measured_against_exact_labels(model: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(segment_command, "_street_classes", lambda: CLASSES)
    monkeypatch.setattr("foveal.data.synthetic.street", lambda seed, size: street(seed, SIZE))
    monkeypatch.setattr("foveal.cost.keep_memory", lambda: False)
    arguments = ("demo", "--model", model, "--out", tmp_path / "demo", "--repeat", 1)
    row = parsed(run(*arguments, "--json"))
    assert 0 <= row["accuracy"] <= 1
    assert 0 <= row["dense_accuracy"] <= 1
    assert {path.name for path in (tmp_path / "demo").iterdir()} >= {"street.png", "street_plan.png"}
    assert "of the pixels, dense" in run(*arguments).stdout
    assert "accuracy" not in parsed(run(*arguments, tmp_path / "demo" / "street.png", "--json"))


def test_lists_name_everything() -> None:
    assert [row["name"] for row in parsed(run("methods", "--json"))] == list(METHODS)
    assert [row["name"] for row in parsed(run("policies", "--json"))] == list(POLICIES)
    for row in parsed(run("methods", "--json")):
        assert all(row.values()), row
    assert all(name in run("policies").stdout for name in POLICIES)
    assert all(name in run("methods").stdout for name in METHODS)


def test_models_are_listed_with_cost(monkeypatch, model: Path) -> None:
    for place in ("checkpoint", "listing"):
        monkeypatch.setattr(f"foveal.hub.{place}.bundled", lambda: {"small": model})
    found = parsed(run("models", "--json"))
    assert found["models"][0]["classes"] == list(CLASSES)
    assert found["models"][0]["bytes"] > 0
    costs = {row["name"]: row["macs"] / 1e9 for row in found["architectures"]}
    assert list(costs) == list(MODELS)
    assert costs["swiftnet_rn18"] == pytest.approx(103.6, rel=0.01)
    text = run("models").stdout
    assert "small" in text
    assert "5: sky, road, tree, car, person" in text


def test_show_a_card_a_plan_and_a_recipe(model: Path, tmp_path: Path) -> None:
    assert "images" in run("show", model).stdout
    assert parsed(run("show", model, "--json"))["tile"] == 32
    plan = tmp_path / "plan.json"
    Plan.uniform(1, (64, 128), 32, 1).save(plan)
    assert "▒▒▒▒▒▒▒▒" in run("show", plan).stdout
    assert parsed(run("show", plan, "--json"))[0]["levels"] == {"1": 1.0}
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("seed = 7\n")
    assert parsed(run("show", recipe))["seed"] == 7


class Mirror(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flip(3)


def mirrored() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), Mirror(), nn.Conv2d(4, 5, 1))


def test_check_says_what_to_do(model: Path) -> None:
    result = run("check", "test_cli:mirrored")
    assert result.exit_code == 1
    assert "flip" in result.stdout
    assert "dense_modules=('1',)" in result.stdout
    row = parsed(run("check", model, "--size", "64x96", "--json"))
    assert row["equal"]
    assert row["findings"] == []


def test_a_wide_plan_is_drawn_more_coarsely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    levels = torch.zeros(4, 100, dtype=torch.int8)
    levels[:, 50:] = 2
    rows = plan_text(levels, 32).splitlines()
    assert [len(row) for row in rows[:2]] == [68, 68]
    assert rows[0].count("█") == rows[0].count("░") == 34
    monkeypatch.setenv("COLUMNS", "40")
    assert len(plan_text(levels, 32).splitlines()[0]) <= 36


def test_wrong_options_are_one_sentence() -> None:
    assert "No such command" in refused(run("segmnt"))
    assert "--nothing" in refused(run("segment", "x.png", "--nothing"))
    assert "--budget" in refused(run("segment", "x.png", "--budget", "much"))
    assert "Missing argument" in refused(run("segment"))
    assert "No such option" in refused(run("--nothing"))


def test_the_entry_point_starts_without_torch() -> None:
    script = (
        "import sys; from foveal.cli import main; sys.argv = ['foveal', '--version']\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("foveal 0.")


def test_the_installed_command_refuses_in_one_sentence(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("foveal")
    arguments = [command, "segment", tmp_path / "none.png", "--model", "none"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("foveal: no model 'none'")
    assert done.stderr.count("\n") == 1
