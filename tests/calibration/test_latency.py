from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from foveal.calibration import latency as module
from foveal.calibration.cost_model import CostModel
from foveal.calibration.engine import Engine
from foveal.calibration.latency import (
    COSTS,
    LARGEST,
    REACH,
    Setup,
    calibrate,
    cost_model,
    covers,
    sizes,
    stored,
)
from foveal.cost import Timing
from foveal.data.pairs import default_palette
from foveal.fusion import faster
from foveal.hub.card import Card
from foveal.hub.checkpoint import Model
from foveal.methods import METHODS, Dense
from samples import error_of, headless, nano

TILE = 16
CARD = Card("swiftnet_nano", tuple("abcde"), default_palette(5))
KNOWN = CostModel(12.0, 2e-4, 3e-3, 5.0, 2.5e-3)


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[int, int], list[str]]]:
    """Let runs take the times of `KNOWN`; collect what was timed."""
    found = []

    def alternate(runs: dict[str, Any], repeat: int, warmup: int) -> dict[str, Timing]:
        assert repeat > 1
        times = {}
        for name, run in runs.items():
            method, image = run.args
            pixels = image.shape[2] * image.shape[3]
            work = float(method(image).trace.work[0])
            ms = KNOWN.dense(pixels) if isinstance(method, Dense) else KNOWN.predict(pixels, work)
            times[name] = Timing((ms,))
        found.append(((image.shape[2], image.shape[3]), list(runs)))
        return times

    monkeypatch.setattr(module, "alternate", alternate)
    return found


@pytest.fixture
def setup() -> Setup:
    return make(headless())


def make(network: nn.Module, method: str = "segblocks", **asked: Any) -> Setup:
    settings = {} if method == "dense" else {"tile": TILE, "coarse_level": 2, **asked}
    model = Model("small", network, CARD)  # type: ignore[arg-type]
    return Setup(Engine(model, faster(network)), method, METHODS[method].Config(**settings))


def network_of(setup: Setup) -> nn.Module:
    return setup.engine.model.network


def test_the_times_of_the_machine_are_found(setup: Setup, turns: list[Any]) -> None:
    model = calibrate(setup, (160, 240))
    assert [size for size, _ in turns] == [(160, 240), (113, 170), (80, 120)]
    assert all(len(names) == 4 and names[-1] == "dense" for _, names in turns)
    assert model.error < 1e-6
    assert model.predict(50_000, 0.4) == pytest.approx(KNOWN.predict(50_000, 0.4))
    assert model.dense(50_000) == pytest.approx(KNOWN.dense(50_000))
    works = [work for row in model.rows for work, _ in row.runs]
    assert all(0 < work < 1 for work in works)
    assert len({round(work, 2) for work in works}) >= 3


def test_a_machine_is_measured_once(setup: Setup, turns: list[Any]) -> None:
    words: list[str] = []
    first = cost_model(setup, (160, 240), words.append)
    count = len(turns)
    assert words == ["measuring how fast this machine is, once"]
    assert cost_model(setup, (160, 240), words.append) == first == stored(setup)
    again = replace(setup, config=replace(setup.config, budget=0.9))
    assert cost_model(again, (100, 100), words.append) == first
    assert (len(turns), len(words)) == (count, 1)


def test_a_much_larger_image_is_measured_as_well(setup: Setup, turns: list[Any]) -> None:
    first = cost_model(setup, (128, 128))
    assert cost_model(setup, (128, 256)) == first
    more = cost_model(setup, (256, 384))
    assert {row.size for row in more.rows} > {row.size for row in first.rows}
    assert more.largest == 256 * 384
    assert stored(setup) == more


def test_a_size_that_is_measured_again_counts_once(setup: Setup, turns: list[Any]) -> None:
    first = calibrate(setup, (128, 128))
    again = calibrate(setup, (128, 128), known=first)
    assert [row.size for row in again.rows] == [row.size for row in first.rows]


@pytest.mark.parametrize(
    "asked",
    [{"tile": 32}, {"max_level": 1}, {"coarse_level": 1}, {"policy": "random"}, {"method": "coarse_to_fine"}],
)
def test_other_settings_have_other_times(setup: Setup, asked: dict[str, Any]) -> None:
    assert make(network_of(setup), **asked).key != setup.key


def test_what_takes_no_time_shares_a_record(setup: Setup, no_costs: Path) -> None:
    network = network_of(setup)
    assert make(network, policy="margin").key == make(network, budget=0.7).key == setup.key
    random = make(network, policy="random", coarse_level=1)
    assert random.key == make(network, policy="centre").key
    assert COSTS.path(setup.key).parent == no_costs
    assert not no_costs.exists()


def test_other_weights_and_threads_have_other_times(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    assert make(headless()).key != setup.key
    before = setup.key
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert setup.key != before


@pytest.mark.parametrize("content", ["", "{}", "no model"])
def test_a_damaged_file_is_measured_again(setup: Setup, turns: list[Any], content: str) -> None:
    COSTS.place.mkdir(parents=True)
    COSTS.path(setup.key).write_text(content)
    with pytest.warns(RuntimeWarning, match=r"no record .*; it counts as empty, and is written anew"):
        assert stored(setup) is None
    assert stored(setup) is None  # it is said once
    assert cost_model(setup, (128, 128)) == stored(setup)


def test_a_record_of_other_numbers_is_measured_again(setup: Setup, turns: list[Any]) -> None:
    COSTS.write(setup.key, {"fixed": "much"})
    with pytest.warns(RuntimeWarning, match=r"no cost model \(fixed is"):
        assert stored(setup) is None


def test_a_folder_that_cannot_be_written_is_said(setup: Setup, turns: list[Any], no_costs: Path) -> None:
    no_costs.parent.write_text("in the way")
    said: list[str] = []
    assert cost_model(setup, (128, 128), said.append).error < 1e-6
    assert said[-1].endswith("; it is measured again next time")
    assert stored(setup) is None
    with pytest.raises(OSError, match=r"in the way|exists|Not a directory"):
        calibrate(setup, (128, 128))


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([16, 32, 48, 64]))
def test_sizes_hold_enough_tiles(height: int, width: int, tile: int) -> None:
    found = sizes((height, width), tile)
    areas = [math.prod(size) for size in found]
    assert 1 <= len(found) <= 3
    assert areas == sorted(areas, reverse=True)
    assert all(min(size) >= 4 * tile for size in found)
    assert areas[0] <= 1.01 * LARGEST
    assert areas[-1] <= 0.3 * areas[0]
    assert REACH * areas[0] >= min(height * width, LARGEST)
    if min(height, width) >= 8 * tile and height * width <= LARGEST:
        assert found[0] == (height, width)


def test_large_images_need_no_large_measurement(setup: Setup, turns: list[Any]) -> None:
    model = calibrate(setup, (128, 128))
    assert covers(model, (1, 1))
    assert covers(model, (128, 256))
    assert not covers(model, (129, 256))
    row = replace(model.rows[0], size=(2048, 2047))
    assert covers(replace(model, rows=(row,)), (100_000, 100_000))


@pytest.mark.parametrize(
    ("method", "asked"),
    [
        ("segblocks", {"policy": "detail"}),
        ("segblocks", {"max_level": 1}),
        ("coarse_to_fine", {"coarse_level": 1}),
    ],
)
def test_budgets_that_pay_for_no_plan_are_not_tried(
    turns: list[Any], method: str, asked: dict[str, Any]
) -> None:
    model = calibrate(make(nano(), method, tile=32, **asked), (256, 256))
    assert all(len(row.runs) >= 2 for row in model.rows)
    assert model.error < 0.05


def test_real_times_give_a_model(setup: Setup) -> None:
    model = calibrate(setup, (64, 64))
    assert [row.size for row in model.rows] == [(128, 128), (91, 91), (64, 64)]
    assert model.predict(128 * 128, 0.5) > 0
    assert model.dense(128 * 128) > 0


def test_what_has_no_budget_is_refused(setup: Setup) -> None:
    for method, policy in (("dense", ""), ("segblocks", "none"), ("segblocks", "all")):
        message = error_of(
            lambda m=method, p=policy: calibrate(make(network_of(setup), m, policy=p), (99, 99))
        )
        assert "has no budget" in message
    assert "allow a coarser level" in error_of(
        lambda: calibrate(make(network_of(setup), max_level=0), (99, 99))
    )


def test_a_network_without_a_meaning_on_tiles_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Softmax(3), nn.Conv2d(4, 5, 1)).eval()
    assert "small cannot run on tiles" in error_of(lambda: calibrate(make(network), (99, 99)))
