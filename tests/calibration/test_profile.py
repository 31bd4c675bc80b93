"""What `foveal adapt` found: kept, found again, and refused where it does not belong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from commands import small_model
from foveal.calibration.profile import Fit, find_fit, find_risk, load_fit
from foveal.calibration.risk import RiskTable
from foveal.hub.checkpoint import Model, fingerprint, load_model
from samples import error_of, nano

TABLE = RiskTable.fit(
    [0.0, 0.2, 0.4],
    torch.tensor([1.0, 0.7, 0.3]),
    torch.tensor([[0.0, 0.1, 0.2]]).repeat(9, 1),
    torch.tensor([[0.0, 0.1, 0.3]]).repeat(9, 1),
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("foveal.calibration.profile.folder", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "fit"


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return load_model(small_model(tmp_path))


def found(model: Model, **changes: Any) -> Fit:
    fit = Fit(
        fingerprint(model.network), 32, 1, "margin", (0.4, 1.0), (1.0,) * 5, 9, TABLE, [{"method": "dense"}]
    )
    return replace(fit, **changes)


def test_what_was_found_lies_beside_the_weights_and_comes_back(model: Model) -> None:
    fit = found(model)
    path = fit.save(model)
    assert path == model.file.with_suffix(".fit.json")
    assert load_fit(model) == fit == find_fit(model)
    assert load_fit(load_model(model.file)) == fit
    request = fit.request(0.3)
    assert (request.budget, request.policy, request.worth) == (0.3, "margin", (0.4, 1.0))
    assert (request.tile, request.look, request.coarsest, request.threshold) == (32, 1, 1, None)


def test_other_weights_are_refused(model: Model) -> None:
    path = found(model).save(model)
    other = replace(model, network=nano())
    assert fingerprint(other.network) != fingerprint(model.network)
    assert f"{path}: belongs to other weights; run foveal adapt again" in error_of(lambda: load_fit(other))
    assert find_fit(other) is None


def test_a_fingerprint_is_that_of_the_numbers(model: Model) -> None:
    before = fingerprint(model.network)
    assert before == fingerprint(load_model(model.file).network)
    with torch.no_grad():
        next(model.network.parameters())[0].add_(0.5)
    assert fingerprint(model.network) != before


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: "{ no JSON",
        lambda state: "",
        lambda state: "[1, 2]",
        lambda state: json.dumps({**state, "extra": 1}),
        lambda state: json.dumps({**state, "worth": []}),
        lambda state: json.dumps({**state, "worth": ["much"]}),
        lambda state: json.dumps({**state, "worth": 3}),
        lambda state: json.dumps({**state, "tile": "wide"}),
        lambda state: json.dumps({**state, "risk": {}}),
        lambda state: json.dumps({**state, "risk": None}),
        lambda state: json.dumps({key: value for key, value in state.items() if key != "policy"}),
        lambda state: "\x00\x01",
    ],
)
def test_damaged_files_are_refused_in_one_sentence(model: Model, damage: Any) -> None:
    path = found(model).save(model)
    path.write_text(damage(json.loads(path.read_text())))
    message = error_of(lambda: load_fit(model))
    assert message.startswith(f"{path}: damaged (")
    assert message.endswith("; run foveal adapt again")
    assert find_fit(model) is None


def test_a_folder_that_cannot_be_written_gives_way_to_the_cache(model: Model, cache: Path) -> None:
    beside = model.file.with_suffix(".fit.json")
    beside.mkdir()
    fit = found(model)
    assert fit.save(model).parent == cache
    assert load_fit(model) == fit
    cache.rename(cache.with_name("gone"))
    cache.touch()
    assert "give --out with another folder" in error_of(lambda: fit.save(model))


def test_what_is_stale_beside_the_weights_does_not_hide_what_is_good(model: Model, cache: Path) -> None:
    path = found(model).save(model)
    fit = found(model, look=2)
    assert fit.save(replace(model, file=None)).parent == cache
    assert load_fit(model).look == 1
    path.write_text("stale")
    assert load_fit(model) == fit


def test_a_model_that_was_not_adapted_is_told_how(model: Model) -> None:
    assert error_of(lambda: load_fit(model)) == (
        f"small has not been adapted yet; run foveal adapt {model.file} --images FOLDER (no labels needed)"
    )


def test_a_risk_chooses_the_least_work_that_keeps_it(model: Model) -> None:
    found(model).save(model)
    # Bounds are (9 x loss + 1) / 10: 0, 0.19 and 0.28.
    settings = {alpha: find_risk(model, alpha).setting for alpha in (0.15, 0.2, 0.3)}
    assert [setting.threshold for setting in settings.values()] == [0.0, 0.2, 0.4]
    assert settings[0.15].dense and not settings[0.2].dense
    assert settings[0.3].bound == pytest.approx(0.28, abs=2e-5)
    request = find_risk(model, 0.3).request
    assert (request.budget, request.threshold, request.policy) == (1.0, 0.4, "margin")
    assert "needs at least 99 calibration images and there are 9" in error_of(lambda: find_risk(model, 0.01))
    assert "risk is nan" in error_of(lambda: find_risk(model, float("nan")))
