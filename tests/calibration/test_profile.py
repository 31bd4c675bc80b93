"""What `foveal adapt` found: kept, found again, and refused where it does not belong."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from commands import small_model
from foveal.calibration.profile import (
    CalibrationProfile,
    CurveRow,
    Unusable,
    find_profile,
    find_risk,
    load_profile,
)
from foveal.calibration.risk import RiskTable
from foveal.calibration.risk.drawn import DrawnMethod
from foveal.hub.checkpoint import Model, load_model
from foveal.hub.fingerprint import fingerprint
from foveal.methods import CoarseToFineConfig, Dense
from foveal.reporting.profile_text import profile_text
from samples import error_of, nano

TABLE = RiskTable.fit(
    [0.0, 0.2, 0.4],
    torch.tensor([1.0, 0.7, 0.3]),
    torch.tensor([[0.0, 0.1, 0.2]]).repeat(9, 1),
    torch.tensor([[0.0, 0.1, 0.3]]).repeat(9, 1),
)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "profile"


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return load_model(small_model(tmp_path))


def found(model: Model, **changes: Any) -> CalibrationProfile:
    config = CoarseToFineConfig(0.4, "margin", 32, 1, level_gain=(0.4, 1.0))
    row = CurveRow("dense", 1.0, 1.0, 1.0, 0.0, 5.0, 9)
    config = replace(config, **changes)
    return CalibrationProfile(fingerprint(model.network), config, (1.0,) * 5, 9, TABLE, (row,))


def record(state: dict[str, Any]) -> str:
    return json.dumps({"version": 1, "record": state})


def test_what_was_found_lies_beside_the_weights_and_comes_back(model: Model) -> None:
    profile = found(model)
    path = profile.save(model)
    assert path == model.file.with_suffix(".profile.json")
    assert load_profile(model) == profile == find_profile(model)
    assert load_profile(load_model(model.file)) == profile
    known = {"policy": "margin", "tile": 32, "coarse_level": 1, "level_gain": (0.4, 1.0)}
    known["isolated_gain"] = 0.3
    assert profile.settings(0.31, coarse_level=2) == known == profile.settings(0.2, coarse_level=1)
    assert profile.settings(0.29, coarse_level=2) == {
        "policy": "margin",
        "tile": 32,
        "isolated_gain": 0.3,
        "coarse_level": 2,
    }


def test_profiles_from_before_neighbours_counted_run_as_they_were_measured(model: Model) -> None:
    path = found(model).save(model)
    state = json.loads(path.read_text())["record"]
    del state["config"]["isolated_gain"]
    path.write_text(record(state))
    assert load_profile(model).config.isolated_gain == 1.0


def test_other_weights_are_refused(model: Model) -> None:
    path = found(model).save(model)
    other = replace(model, network=nano())
    assert fingerprint(other.network) != fingerprint(model.network)
    message = error_of(lambda: load_profile(other))
    assert f"{path}: belongs to other weights; run foveal adapt again" in message
    assert find_profile(other) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: "{ no JSON",
        lambda state: "",
        lambda state: "[1, 2]",
        lambda state: record(state | {"config": {**state["config"], "extra": 1}}),
        lambda state: record(state | {"config": {**state["config"], "level_gain": []}}),
        lambda state: record(state | {"config": {**state["config"], "level_gain": ["much"]}}),
        lambda state: record(state | {"config": {**state["config"], "level_gain": 3}}),
        lambda state: record(state | {"config": {**state["config"], "tile": "wide"}}),
        lambda state: record(state | {"config": {**state["config"], "coarse_level": 10**6}}),
        lambda state: record(state | {"config": {**state["config"], "tile": 10**9}}),
        lambda state: record(state).replace('"tile": 32', '"tile": 1e400'),
        lambda state: record({**state, "risk": {}}),
        lambda state: record({**state, "risk": None}),
        lambda state: record({key: value for key, value in state.items() if key != "config"}),
        lambda state: "\x00\x01",
    ],
)
def test_damaged_files_are_refused_in_one_sentence(model: Model, damage: Any) -> None:
    path = found(model).save(model)
    path.write_text(damage(json.loads(path.read_text())["record"]))
    message = error_of(lambda: load_profile(model))
    assert message.startswith((f"{path}: no profile (", f"{path}: no record ("))
    assert message.endswith("; run foveal adapt again")
    with pytest.raises(Unusable, match=r"no (profile|record) "):  # other settings would go unnoticed
        find_profile(model)


def test_a_profile_that_cannot_be_replaced_is_not_hidden_behind_the_old_one(
    model: Model, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = found(model).save(model)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        message = error_of(lambda: found(model, coarse_level=2).save(model))
    assert f"{path} cannot be written (No space left on device)" in message
    assert load_profile(model).config.coarse_level == 1
    assert not list(cache.glob("**/*.json"))


def test_a_folder_that_cannot_be_written_gives_way_to_the_cache(model: Model, cache: Path) -> None:
    beside = model.file.with_suffix(".profile.json")
    beside.mkdir()
    profile = found(model)
    assert profile.save(model).parent == cache
    assert load_profile(model) == profile
    cache.rename(cache.with_name("gone"))
    cache.touch()
    assert "give --out with another folder" in error_of(lambda: profile.save(model))


def test_what_is_stale_beside_the_weights_does_not_hide_what_is_good(model: Model, cache: Path) -> None:
    path = found(model).save(model)
    profile = found(model, coarse_level=2)
    assert profile.save(replace(model, file=None)).parent == cache
    assert load_profile(model).config.coarse_level == 1
    path.write_text("stale")
    with pytest.warns(RuntimeWarning, match=r"no (profile|record) .*; run foveal adapt again; .* is used"):
        assert load_profile(model) == profile


def test_a_model_that_was_not_adapted_is_told_how(model: Model) -> None:
    assert error_of(lambda: load_profile(model)) == (
        f"small has not been adapted yet; run foveal adapt {model.file} --images FOLDER (no labels needed)"
    )


def test_a_risk_chooses_the_least_work_that_keeps_it(model: Model) -> None:
    found(model).save(model)
    # Bounds are (9 x loss + 1) / 10: 0, 0.19 and 0.28.
    settings = {alpha: find_risk(model, alpha).setting for alpha in (0.15, 0.2, 0.3)}
    assert [setting.threshold for setting in settings.values()] == [0.0, 0.2, 0.4]
    assert settings[0.15].dense and not settings[0.2].dense
    assert settings[0.3].bound == pytest.approx(0.28, abs=2e-5)
    config = find_risk(model, 0.3).config
    assert (config.budget, config.threshold, config.policy) == (1.0, 0.4, "margin")
    assert "needs at least 99 calibration images and there are 9" in error_of(lambda: find_risk(model, 0.01))
    assert find_risk(model, 0.3).setting.share == 1
    assert "risk is nan" in error_of(lambda: find_risk(model, float("nan")))


def test_a_profile_of_an_older_version_is_read_and_keeps_risks_as_it_did(model: Model) -> None:
    path = found(model).save(model)
    state = json.loads(path.read_text())["record"]
    for name in ("risk_of", "chosen_on"):
        del state[name]
    del state["risk"]["mixed"]
    path.write_text(record(state))
    older = load_profile(model)
    assert older == found(model)
    assert (older.risk_of, older.chosen_on, older.calibrated_on) == ("dense", None, 9)
    assert find_risk(model, 0.2).setting.threshold == 0.2
    assert "the same 9 images chose settings and calibrated" in profile_text(older, path, "")


def test_a_small_risk_mixes_a_threshold_with_dense(model: Model) -> None:
    profile = replace(found(model), risk=replace(TABLE, mixed=2), chosen_on=3, risk_of="labels")
    path = profile.save(model)
    assert load_profile(model) == profile
    kept = find_risk(model, 0.01)  # the bound of setting 2 is 0.28
    assert kept.setting.share == pytest.approx(0.01 / 0.28, abs=1e-4)
    assert (kept.config.threshold, kept.draw.share) == (0.4, kept.setting.share)
    method, dense = Dense(model.network), Dense(model.network)
    assert isinstance(kept.mixed(method, dense), DrawnMethod)
    assert find_risk(model, 0.5).mixed(method, dense) is method
    text = profile_text(profile, path, "")
    for words in (
        "3.6% of the images adapted",
        "3 images chose settings, 9 others calibrated",
        "error on lab",
    ):
        assert words in text


def test_what_a_risk_is_of_is_one_of_two(model: Model) -> None:
    path = found(model).save(model)
    state = json.loads(path.read_text())["record"]
    path.write_text(record(state | {"risk_of": "luck"}))
    assert "risk_of is 'luck'" in error_of(lambda: load_profile(model))
