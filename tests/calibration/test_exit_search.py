"""The search for exits and thresholds: what it says is what running the choice gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from commands import parsed, refused, run
from foveal.calibration.candidates import Space
from foveal.calibration.configure import Asked, choose
from foveal.calibration.engine import Engine, find_engine
from foveal.calibration.exit_search import SearchResult, calibration_error, risk_at, search_exits
from foveal.calibration.tune import Effort, tune
from foveal.data.dataset import open_dataset
from foveal.data.pairs import Dataset, default_palette
from foveal.data.synthetic import CLASSES
from foveal.exits import ExitConfig, Exits, Stages
from foveal.hub.card import Card
from foveal.hub.checkpoint import load_model, save_model
from foveal.objectives.confusion import Confusion
from samples import lively, nano, write_folder

SIZE = (96, 128)
BUDGETS = (0.3, 0.6, 0.9)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = write_folder(tmp_path_factory.mktemp("data"), 5, SIZE)
    return open_dataset(f"folder:{folder}", "test")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = lively(nano(len(CLASSES)), torch.rand(3, *SIZE))
    exits = Exits.of(Stages(network), ExitConfig("", width=16), seed=5)
    with torch.no_grad():
        for head in exits:
            head.classify.weight.mul_(1000)
    card = Card("swiftnet_nano", CLASSES, default_palette(len(CLASSES)))
    return save_model(network, card, tmp_path_factory.mktemp("model") / "model", parts={"exits": exits})


@pytest.fixture
def engine(path: Path) -> Engine:
    return find_engine(load_model(path))


@pytest.fixture
def found(engine: Engine, data: Dataset) -> SearchResult:
    return search_exits(engine, data, BUDGETS, timed=0)


@torch.no_grad()
def executed(engine: Engine, data: Dataset, row: object) -> tuple[float, float]:
    """Run a stored row on all images; return its work and mean IoU."""
    method = engine.make("mess", row.config, engine.model.resources)  # type: ignore[attr-defined]
    confusion, works = Confusion(len(CLASSES)), list[float]()
    for image, target in (data[k] for k in range(len(data))):
        answer = method(image[None])
        confusion.add(answer.labels, target[None])
        works.append(float(answer.trace.work[0]))
    return sum(works) / len(works), confusion.miou


def test_stored_rows_give_what_was_promised(engine: Engine, data: Dataset, found: SearchResult) -> None:
    assert found.settings.rows
    for row in found.settings.rows:
        work, miou = executed(engine, data, row)
        assert (work, miou) == (pytest.approx(row.work, abs=1e-3), pytest.approx(row.miou, abs=1e-4))


def test_budgets_are_kept_in_the_mean_and_more_is_never_worse(found: SearchResult) -> None:
    for mode in ("fixed", "input"):
        rows = [row for row in found.rows if row.mode == mode]
        assert rows and all(row.work <= row.budget for row in rows)
        assert [row.miou for row in rows] == sorted(row.miou for row in rows)
    ends = [row for row in found.rows if row.mode == "anytime"]
    assert [row.work for row in ends] == sorted(row.work for row in ends) and ends[-1].work > 1


def test_every_exit_is_described(engine: Engine, data: Dataset, found: SearchResult) -> None:
    assert [row.place for row in found.exits] == ["encoder.stages.0", "encoder.stages.1", ""]
    end = found.exits[-1]
    confusion = Confusion(len(CLASSES))
    for image, target in (data[k] for k in range(len(data))):
        confusion.add(engine.dense().labels(image[None]), target[None])
    assert end.miou == pytest.approx(confusion.miou, abs=1e-4) and end.work == pytest.approx(1)
    for row in found.exits:
        assert row.calibrated_error <= row.calibration_error + 0.05 and 0.25 <= row.temperature <= 4
        assert row.ms is None and set(row.risk) == {"0.5", "0.6", "0.7", "0.8", "0.9", "1"}


def test_stages_are_timed(engine: Engine, data: Dataset) -> None:
    rows = search_exits(engine, data, BUDGETS, limit=2, timed=1).exits
    assert all(row.ms is not None and row.ms > 0 for row in rows)


def test_calibration_error_and_risk_of_known_answers() -> None:
    sure = torch.tensor([0.9] * 10 + [0.6] * 10)
    right = torch.tensor([True] * 9 + [False] + [True] * 3 + [False] * 7)
    assert calibration_error(sure, right) == pytest.approx((0 * 10 + 0.3 * 10) / 20)
    assert risk_at(0.5, sure, right) == pytest.approx(0.1) and risk_at(1.0, sure, right) == pytest.approx(0.4)


def test_a_model_without_exits_is_told_how_to_get_some(data: Dataset, engine: Engine) -> None:
    plain = replace(engine, model=replace(engine.model, parts={}))
    with pytest.raises(ValueError, match=r"has no exits, which mess needs: train the network with a recipe"):
        search_exits(plain, data, BUDGETS)


def test_labels_are_needed(engine: Engine) -> None:
    class Unlabelled:
        name, classes = "nothing", CLASSES

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            return torch.rand(3, *SIZE), torch.full(SIZE, 255, dtype=torch.uint8)

    with pytest.raises(ValueError, match="no pixel of nothing has a label"):
        search_exits(engine, Unlabelled(), BUDGETS, timed=0)  # type: ignore[arg-type]


def test_the_command_stores_what_evaluate_uses(path: Path, data: Dataset, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data", 4, SIZE)
    call = ("search", path, "--data", f"folder:{folder}", "--split", "test", "--timed", 0, "--budgets", 0.6)
    try:
        text = run(*call).stdout
        assert "every image leaves at one exit" in text and "an image leaves when an exit is sure" in text
        stored = next(row for row in parsed(run(*call, "--json"))["rows"] if row["mode"] == "input")
        chosen = choose(load_model(path), Asked(method="mess", budget=0.6), "mess")
        assert (chosen.config.threshold, chosen.config.exits) == (stored["threshold"], stored["exits"])  # type: ignore[attr-defined]
        again = ("evaluate", path, "--data", f"folder:{folder}", "--method", "mess", "--budget", 0.6)
        row = parsed(run(*again, "--timed", 0, "--json"))[-1]
        assert row["work"] == pytest.approx(stored["work"], abs=1e-3)
        assert row["miou"] == pytest.approx(stored["miou"], abs=1e-3)
    finally:
        path.with_suffix(".tuned.json").unlink(missing_ok=True)
    said = refused(run("search", path, "--data", f"folder:{folder}", "--budgets", 2))
    assert "--budgets is 2" in said


def test_what_was_found_is_of_these_exits(engine: Engine) -> None:
    others = Exits.of(Stages(engine.model.network), seed=6)
    assert replace(engine.model, parts={"exits": others}).weights != engine.model.weights
    assert replace(engine.model, parts={}).weights != engine.model.weights


def test_two_searches_keep_what_the_other_found(engine: Engine, data: Dataset, path: Path) -> None:
    try:
        search_exits(engine, data, BUDGETS, timed=0).settings.save(engine.model)
        tune({"f32": engine}, data, Space((0.5,), (1.0,)), Effort(timed=0)).settings.save(engine.model)
        both = search_exits(engine, data, BUDGETS, timed=0).settings
        assert {"mess", "dense"} <= {row.method for row in both.rows}
        assert len(both.rows) == len(set(map(repr, both.rows)))
    finally:
        path.with_suffix(".tuned.json").unlink(missing_ok=True)
