"""Tuning where the right scale is known, and what becomes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from foveal.calibration.candidates import VARIED, Space
from foveal.calibration.configure import Asked, choose
from foveal.calibration.engine import find_engine
from foveal.calibration.tune import Effort, TuneResult, tune
from foveal.calibration.tuned import TUNED, find_tuned
from foveal.hub.beside import Unusable
from foveal.hub.checkpoint import Model
from foveal.inference.runner import Runner
from foveal.reporting.tune_text import conclusions, tune_text
from samples import error_of
from stripes import SIZE, StripeNetwork, Stripes, stripe_model

SPACE = Space((0.1, 0.25), (1.0, 0.5))
EFFORT = Effort(first=2, timed=0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    made = stripe_model()
    file = tmp_path_factory.mktemp("tuned") / "stripes.safetensors"
    save_file(made.network.state_dict(), file)
    return replace(made, file=file)


@pytest.fixture(scope="module")
def found(model: Model) -> TuneResult:
    return tune({"f32": find_engine(model)}, Stripes(8), SPACE, EFFORT)  # type: ignore[arg-type]


def test_the_scale_at_which_the_network_sees_is_found(found: TuneResult) -> None:
    alone = {row.scale: row.miou for row in found.finalists if row.method == "dense"}
    assert max(alone, key=lambda scale: alone[scale]) == 0.5
    assert alone[1.0] < 0.5 < 0.8 < alone[0.5]
    assert "sees best at scale 0.5" in conclusions(found)[0]
    assert "against" in conclusions(found)[0] and "at full size" in conclusions(found)[0]
    best = found.settings.for_budget(1.0)
    assert best is not None and best.config.scale == 0.5 and best.work <= 0.25 + 1e-3
    assert found.settings.dense_miou == pytest.approx(alone[1.0], abs=1e-4)


def test_halving_drops_settings_but_no_scale_alone(found: TuneResult) -> None:
    (few, first), (more, second), (every, last) = found.rungs
    assert (few, more, every) == (2, 4, 8) and first > second > last
    scales = {row.scale for row in found.rows if row.method == "dense"}
    assert {row.scale for row in found.finalists if row.method == "dense"} == scales >= {1.0, 0.5}
    dropped = [row for row in found.rows if row.images < 8]
    assert len(dropped) == first - last
    assert {row.images for row in dropped} == {2, 4}
    assert {row.method for row in found.rows} == {"dense", *VARIED}
    assert any("schedule direct" in row.title for row in found.rows)


def test_the_same_seed_gives_the_same_result(model: Model, found: TuneResult) -> None:
    again = tune({"f32": find_engine(model)}, Stripes(8), SPACE, EFFORT)  # type: ignore[arg-type]
    assert again == found


def test_rows_grow_with_the_budget_and_no_row_is_beaten(found: TuneResult) -> None:
    rows = found.settings.rows
    assert [row.work for row in rows] == sorted(row.work for row in rows)
    assert [row.miou for row in rows] == sorted(row.miou for row in rows)
    for budget in (0.05, 0.15, 0.2, 0.4):
        row = found.settings.for_budget(budget)
        assert row is None or row.work <= budget + 0.005
    assert found.settings.for_latency(10.0) is None, "nothing was timed"


def test_times_choose_for_a_latency(model: Model) -> None:
    made = tune({"f32": find_engine(model)}, Stripes(2), SPACE, Effort(timed=1, repeat=1))  # type: ignore[arg-type]
    rows = made.settings.rows
    assert all(row.ms is not None and row.ms > 0 for row in rows)
    assert any("time" in row.best_for for row in made.finalists)
    assert made.settings.for_latency(1e9) is not None and made.settings.for_latency(1e-9) is None
    text = tune_text(made, Path("x.tuned.json"), "x.png")
    assert "ms" in text and "x.tuned.json" in text and "best of many" in text


# What is stored


def test_it_comes_back_and_chooses(model: Model, found: TuneResult) -> None:
    path = found.settings.save(model)
    assert path.name == "stripes.tuned.json"
    assert find_tuned(model) == found.settings
    chosen = choose(model, Asked(budget=1.0), "segblocks")
    assert chosen.config.scale == 0.5 and "foveal tune chose" in chosen.why and "scale 0.5" in chosen.why
    result = Runner(find_engine(model), chosen.method, chosen)(Stripes(1)[0][0])
    assert result.scale == 0.5 and result.work <= 0.26 and result.chosen == chosen.why
    assert result.labels.shape == SIZE


def test_what_a_user_gives_wins(model: Model, found: TuneResult) -> None:
    found.settings.save(model)
    for asked in (
        Asked(budget=0.4, settings={"scale": 1.0, "coarse_level": 1, "tile": 16}),
        Asked(budget=0.4, precision="bf16"),
        Asked(budget=0.4, settings={"tile": 32}),
    ):
        chosen = choose(model, asked, "segblocks")
        assert "scale 0.5" not in chosen.why
        assert all(getattr(chosen.config, name) == value for name, value in asked.settings.items())
        assert asked.precision in (None, chosen.precision)
    own = choose(model, Asked("segblocks", budget=0.4), "segblocks")
    assert own.method == "segblocks"


def test_a_latency_gets_the_scale_that_was_best_in_time(model: Model, found: TuneResult) -> None:
    timed = replace(
        found.settings, rows=tuple(replace(row, ms=100 * row.work) for row in found.settings.rows)
    )
    timed.save(model)
    try:
        chosen = choose(model, Asked(latency=1000.0), "segblocks")
        assert chosen.config.scale == 0.5 and chosen.config.adjustable
    finally:
        found.settings.save(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 3}, "rows"),
        ({"dense_miou": 7}, "dense_miou"),
        ({"method": "nothing"}, "no method named 'nothing'"),
        ({"settings": {"budget": 0.4, "scale": 9.0}}, "scale is 9"),
        ({"settings": {"budgt": 0.4}}, "budgt"),
    ],
)
def test_a_damaged_file_is_refused(
    model: Model, found: TuneResult, change: dict[str, Any], message: str
) -> None:
    path = found.settings.save(model)
    record = json.loads(path.read_text())
    row = record["record"]["rows"][0]
    target = row if set(change) & set(row) else record["record"]
    target.update(change)
    path.write_text(json.dumps(record))
    try:
        said = error_of(lambda: find_tuned(model))
        assert message in said and "run foveal tune again" in said
        with pytest.raises(Unusable):
            find_tuned(model)
    finally:
        found.settings.save(model)


def test_other_weights_have_none(model: Model, found: TuneResult) -> None:
    found.settings.save(model)
    other = replace(model, network=StripeNetwork(6))
    assert find_tuned(other) is None
    assert "belongs to other weights" in error_of(lambda: TUNED.load(other))
    assert "has not been tuned yet" in error_of(lambda: TUNED.load(replace(other, file=None)))


def test_images_without_labels_are_refused(model: Model) -> None:
    data = Stripes(1)
    engines = {"f32": find_engine(model)}
    assert "no labelled images" in error_of(lambda: tune(engines, Stripes(0), SPACE, EFFORT))  # type: ignore[arg-type]
    data.items = [(data.items[0][0], torch.full(SIZE, 255, dtype=torch.uint8))]
    assert "has a label" in error_of(lambda: tune(engines, data, SPACE, EFFORT))  # type: ignore[arg-type]
