"""What runs within a latency, and what runs where a cost model of this machine predicts no gain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from commands import Result, parsed, refused, run, small_model
from foveal.calibration.cost_model import CostModel, Measurement
from foveal.calibration.engine import find_engine
from foveal.calibration.latency import COSTS
from foveal.cost import Timing
from foveal.data.image import save_image
from foveal.data.synthetic import street
from foveal.hub.checkpoint import load_model
from foveal.inference.runner import Runner
from foveal.methods import METHODS
from foveal.reporting.segment_text import advice
from samples import error_of

SIZE = (128, 192)
PIXELS = SIZE[0] * SIZE[1]
LEAST = 1 / 16 + 2 * 32 * 32 / PIXELS
"""A look at a quarter of the size, and two tiles."""
ROW = Measurement(SIZE, 100.0, ((0.5, 60.0),))


def machine(fixed: float, per_work: float, dense: float) -> CostModel:
    """Make a machine on which an image of `SIZE` takes fixed + per_work * work, or dense [ms]."""
    return CostModel(fixed, 0.0, per_work / PIXELS, 0.0, dense / PIXELS, rows=(ROW,))


FAST = machine(10.0, 100.0, 100.0)
"""Tiles pay up to a budget of 0.9."""
SLOW = machine(90.0, 100.0, 100.0)
"""Tiles pay for next to nothing."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    save_image(street(3, SIZE)[0], path)
    return path


@pytest.fixture
def runner(model: Path):
    def make(costs: CostModel | None, method: str = "segblocks", **asked: Any) -> Runner:
        options = {name: asked.pop(name) for name in ("latency", "always_adapt", "report") if name in asked}
        made = Runner(find_engine(load_model(model)), method, METHODS[method].Config(**asked), **options)
        if costs is not None:
            COSTS.write(made.setup.key, costs.as_record())
        return made

    return make


@pytest.fixture
def segment(model: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    def command(*arguments: object) -> Result:
        return run("segment", photo, "--model", model, "--no-keep-memory", *arguments)

    return command


@pytest.fixture
def picture():
    return street(3, SIZE)[0]


@pytest.fixture
def no_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foveal.calibration.latency.measure", lambda *arguments: pytest.fail("it measured"))


@pytest.mark.usefixtures("no_measuring")
@pytest.mark.parametrize(("latency", "budget"), [(60.0, 0.5), (30.05, 0.2), (99.9, 0.899)])
def test_the_budget_is_the_largest_that_fits(runner, picture, latency: float, budget: float) -> None:
    result = runner(FAST, latency=latency)(picture)
    assert result.reason == ""
    assert result.choice.budget == pytest.approx(budget)
    assert result.choice.latency == latency
    assert result.choice.predicted_ms == pytest.approx(10 + 100 * budget)
    assert result.work <= budget + 32 * 32 / PIXELS
    asked = runner(None, budget=result.choice.budget)(picture)
    assert asked.work == result.work
    assert (asked.labels == result.labels).all()


@pytest.mark.usefixtures("no_measuring")
def test_coarse_to_fine_keeps_a_latency(runner, picture) -> None:
    asked = {"method": "coarse_to_fine", "policy": "weighted_entropy"}
    result = runner(FAST, latency=60.0, **asked)(picture)
    assert (result.reason, result.choice.budget) == ("", 0.5)
    assert 0.5 - 32 * 32 / PIXELS < result.work <= 0.5
    least = 2 * 32 * 32 / PIXELS
    cheapest = runner(FAST, latency=FAST.predict(PIXELS, least) + 1e-9, **asked)(picture)
    assert cheapest.work == pytest.approx(least)
    assert "with the cheapest plan" in error_of(lambda: runner(FAST, latency=15.0, **asked)(picture))


@pytest.mark.usefixtures("no_measuring")
def test_dense_runs_where_it_fits(runner, picture) -> None:
    result = runner(FAST, latency=100.0)(picture)
    assert result.reason == "predicted 100.0 ms, within the 100 ms asked for"
    assert (result.work, result.choice.budget, result.choice.predicted_ms) == (1, 1, 100)
    assert result.cells is None


@pytest.mark.usefixtures("no_measuring")
def test_the_cheapest_plan_runs_where_only_it_fits(runner, picture) -> None:
    least = FAST.predict(PIXELS, LEAST)
    result = runner(FAST, latency=least + 1e-9)(picture)
    assert result.work == pytest.approx(LEAST)
    message = error_of(lambda: runner(FAST, latency=least - 0.1)(picture))
    assert "latency is 24.4833 ms; predicted for 128x192 px" in message
    assert "24.6 ms with the cheapest plan and 100.0 ms with the dense network" in message


@pytest.mark.usefixtures("no_measuring")
def test_a_small_image_is_dense_or_refused(runner) -> None:
    image = street(0, (20, 30))[0]
    assert "within the 50 ms" in runner(FAST, latency=50.0)(image).reason
    assert "asked for" in runner(FAST, latency=50.0, always_adapt=True)(image).reason
    assert "predicted for 20x30 px" in error_of(lambda: runner(FAST, latency=1.0)(image))


@pytest.mark.usefixtures("no_measuring")
def test_whoever_insists_gets_tiles_within_the_latency(runner, picture) -> None:
    result = runner(FAST, latency=500.0, always_adapt=True)(picture)
    assert (result.reason, result.choice.budget) == ("", 0.99)


def test_a_machine_that_is_not_known_is_measured_once(runner, picture, monkeypatch) -> None:
    calls = []

    def measure(setup, found):
        calls.append(found)
        return [replace(ROW, size=size, runs=((0.25, 35.0), (0.5, 60.0))) for size in found]

    monkeypatch.setattr("foveal.calibration.latency.measure", measure)
    words: list[str] = []
    first = runner(None, latency=60.0, report=words.append)
    assert first(picture).work == first(picture).work
    assert runner(None, latency=70.0, report=words.append)(picture).reason == ""
    assert calls == [[(256, 256), (181, 181), (128, 128)]]
    assert words == ["measuring how fast this machine is, once"]


@pytest.mark.usefixtures("no_measuring")
def test_without_a_cost_model_the_budget_decides(runner, picture) -> None:
    result = runner(None, budget=0.5)(picture)
    assert (result.reason, result.choice.predicted_ms, result.choice.latency) == ("", None, None)


@pytest.mark.usefixtures("no_measuring")
def test_dense_runs_where_no_gain_is_predicted(runner, picture) -> None:
    result = runner(SLOW, budget=0.5)(picture)
    assert result.reason == "predicted 100.0 ms against 140.0 ms on tiles"
    assert (result.work, result.choice.budget, result.choice.predicted_ms) == (1, 0.5, 100)
    assert runner(SLOW, budget=0.5, always_adapt=True)(picture).reason == ""
    gain = runner(FAST, budget=0.5)(picture)
    assert (gain.reason, gain.choice.predicted_ms) == ("", pytest.approx(60))
    assert runner(FAST, budget=0.9)(picture).reason != ""
    assert runner(None, budget=0.9, max_level=1)(picture).reason == ""


@pytest.mark.usefixtures("no_measuring")
def test_no_gain_is_predicted_for_images_far_beyond_those_measured(runner) -> None:
    assert runner(SLOW, budget=0.5)(street(0, (257, 192))[0]).reason == ""


@pytest.mark.usefixtures("no_measuring")
def test_a_policy_without_a_budget_costs_its_plan(runner, picture) -> None:
    quicker = machine(90.0, 100.0, 95.0)
    assert "98.3 ms on tiles" in runner(quicker, policy="none")(picture).reason
    assert runner(SLOW, policy="none")(picture).reason == ""


@pytest.mark.usefixtures("no_measuring")
@pytest.mark.parametrize("content", ["", "{}"])
def test_a_damaged_cost_model_decides_nothing(runner, picture, content: str) -> None:
    made = runner(SLOW, budget=0.5)
    COSTS.path(made.setup.key).write_text(content)
    with pytest.warns(RuntimeWarning, match="it counts as empty, and is written anew"):
        assert made(picture).reason == ""


def test_a_comparison_measures_what_was_overruled(runner, picture, monkeypatch) -> None:
    seen: list[list[str]] = []

    def alternate(runs, repeat, warmup):
        seen.append(sorted(runs))
        return {name: Timing((90.0 if name == "method" else 60.0,)) for name in runs}

    monkeypatch.setattr("foveal.inference.runner.Runner.timer", staticmethod(alternate))
    result = runner(SLOW, budget=0.5)(picture, repeat=2)
    assert (result.timing.median, result.dense_timing.median, result.method_timing.median) == (60, 60, 90)
    assert result.agreement == 1
    assert advice(result) == ""
    runner(FAST, latency=500.0)(picture, repeat=2)
    assert seen == [["dense", "method"], ["dense"]]
    wrong = replace(result, method_timing=Timing((50.0,)))
    assert "foveal calibrate" in advice(wrong)


@pytest.mark.parametrize("latency", [0, -3, float("nan"), float("inf")])
def test_a_latency_is_a_time(runner, latency: float) -> None:
    assert "must be above 0" in error_of(lambda: runner(None, latency=latency))


def test_the_command_says_what_was_asked_predicted_and_measured(segment, runner) -> None:
    runner(FAST)
    row = parsed(segment("--latency", 60, "--json"))
    assert (row["latency"], row["budget"], row["predicted_ms"]) == (60, 0.5, 60)
    assert (row["dense"], row["ms"] > 0) == (False, True)
    text = segment("--latency", 60).stdout
    assert "60 ms asked for, budget 0.500: predicted 60 ms, measured " in text
    assert "(one run; --compare measures)" in text
    dense = segment("--latency", 150).stdout
    assert "dense network: predicted 100.0 ms, within the 150 ms asked for" in dense
    assert "150 ms asked for, the dense network: predicted 100 ms, measured " in dense
    assert "24.6 ms with the cheapest plan" in refused(segment("--latency", 5))


def test_the_command_says_why_dense_runs(segment, runner) -> None:
    runner(SLOW)
    row = parsed(segment("--budget", 0.5, "--json", "--compare", "--repeat", 1))
    assert row["reason"] == "predicted 100.0 ms against 140.0 ms on tiles"
    assert (row["dense"], row["latency"], row["predicted_ms"], row["budget"]) == (True, None, 100, 0.5)
    assert row["ms"] == row["dense_ms"]
    assert row["adaptive_ms"] > 0
    assert "ms, the dense network; on tiles " in segment("--compare", "--repeat", 1).stdout
    row = parsed(segment("--always-adapt", "--json"))
    assert (row["dense"], row["budget"], row["predicted_ms"]) == (False, 0.4, None)


def test_several_images_have_a_line_each(segment, runner, photo: Path) -> None:
    runner(FAST)
    save_image(street(4, SIZE)[0], photo.parent / "other.png")
    lines = segment(photo.parent / "other.png", "--latency", 60).stdout.splitlines()
    assert all("budget 0.500, predicted 60 of 60 ms" in line for line in lines[:2])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--latency", 80, "--budget", 0.4), "--budget 0.4 and --latency 80 exclude one another"),
        (("--latency", 0), "latency is 0 ms; it must be above 0"),
        (("--latency", "soon"), "--latency"),
        (("--latency", 80, "--policy", "all"), "has no budget to choose"),
        (("--latency", 80, "--method", "dense"), "has no budget to choose"),
        (("--latency", 80, "--policy", "entropi"), "did you mean 'entropy'"),
    ],
)
def test_bad_input_is_one_sentence(segment, words: tuple[object, ...], message: str) -> None:
    assert message in refused(segment(*words))


def test_measuring_is_said_on_stderr(segment, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [ROW, replace(ROW, size=(64, 96), dense_ms=25.0, runs=((0.25, 10.0), (0.5, 20.0)))]
    monkeypatch.setattr("foveal.calibration.latency.measure", lambda *arguments: rows)
    result = segment("--latency", 500, "--json")
    assert parsed(result)["dense"]
    assert result.stderr == "foveal: measuring how fast this machine is, once\n"
    assert segment("--latency", 500, "--json").stderr == ""


def test_quiet_does_not_even_say_that_it_measures(segment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foveal.calibration.latency.measure", lambda *arguments: [ROW])
    result = segment("--latency", 500, "--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_calibrate_measures_and_shows(model: Path, monkeypatch: pytest.MonkeyPatch, no_costs: Path) -> None:
    def measure(setup, found):
        return [replace(ROW, size=size, dense_ms=size[0] * size[1] / 250) for size in found]

    monkeypatch.setattr("foveal.calibration.latency.measure", measure)
    arguments = ("calibrate", model, "--size", "256x512", "--no-keep-memory")
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    for words in ("small, segblocks policy entropy, tile 32", "512 x 256", "524.3", "predicted", "tiles pay"):
        assert words in result.stdout
    row = parsed(run(*arguments, "--json"))
    assert [part["size"] for part in row["rows"]] == [[256, 512], [181, 362], [128, 256]]
    assert Path(row["file"]).parent == no_costs
    assert CostModel.from_record(COSTS.read(Path(row["file"]).stem)).dense_per_pixel == row["dense_per_pixel"]
    assert "size is '1'" in refused(run("calibrate", model, "--size", "1"))
    assert "no model" in refused(run("calibrate", "nothing"))
    assert "has no budget" in refused(run("calibrate", model, "--policy", "none"))
    closer = parsed(run(*arguments, "--json", "--method", "coarse_to_fine"))
    assert (closer["config"]["policy"], closer["config"]["coarse_level"]) == ("weighted_entropy", 2)
    assert closer["file"] != row["file"]


def test_the_demo_shows_tiles_on_any_machine(runner, model: Path, photo: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("foveal.cost.keep_memory", lambda: False)
    runner(SLOW)
    row = parsed(run("demo", photo, "--model", model, "--out", tmp_path / "demo", "--repeat", 1, "--json"))
    assert row["dense"] is False
