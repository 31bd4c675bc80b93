"""Law 12: never slower than dense on purpose; where tiles cannot pay, the dense network runs and says why."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conformance import ADAPTIVE, BY_TILES, CLASSES, NAMES, answer, make, ordinary, ordinary_kind
from foveal.calibration.cost_model import CostModel, Measurement
from foveal.calibration.engine import find_engine
from foveal.calibration.latency import COSTS
from foveal.cost import count_macs
from foveal.data.dataset import default_palette
from foveal.hub.card import Card
from foveal.hub.checkpoint import Model
from foveal.inference.runner import Result, Runner
from foveal.methods import METHODS
from foveal.methods.config import settings_of

SIZE = (128, 192)
PIXELS = SIZE[0] * SIZE[1]
Segment = Callable[..., Result]


def machine(fixed_ms: float) -> CostModel:
    """Make a machine on which `SIZE` takes fixed_ms + 100 ms * work on tiles, and 100 ms dense."""
    row = Measurement(SIZE, 100.0, ((0.5, fixed_ms + 50),))
    return CostModel(fixed_ms, 0.0, 100 / PIXELS, 0.0, 100 / PIXELS, rows=(row,))


@cache
def model(kind: Callable[[int], nn.Module]) -> Model:
    classes = tuple(f"class {k}" for k in range(CLASSES))
    network: Any = kind(CLASSES)
    return Model("small", network, Card("swiftnet_nano", classes, default_palette(CLASSES)))


@pytest.fixture
def segment() -> Segment:
    """Give a run of a method by name on an image, on a machine that was measured."""

    def run(name: str, image: Tensor, costs: CostModel | None = None, **asked: object) -> Result:
        kind = METHODS[name].Config
        policy = {"policy": "weighted_entropy"} if "policy" in settings_of(kind) else {}
        runner = Runner(
            find_engine(model(ordinary_kind(name))), name, kind(**{"budget": 0.5, **policy, **asked})
        )
        if costs is not None:
            COSTS.write(runner.setup.key, costs.as_record())
        return runner(image)

    return run


def assert_is_dense(result: Result, reason: str) -> None:
    assert reason in result.reason
    assert (result.work, result.cells) == (1.0, None)
    assert result.macs == result.dense_macs


@pytest.mark.parametrize("name", ADAPTIVE)
def test_dense_runs_where_this_machine_is_predicted_to_gain_nothing(name: str, segment: Segment) -> None:
    image = torch.rand(3, *SIZE)
    assert_is_dense(segment(name, image, machine(fixed_ms=90.0)), "predicted 100.0 ms against 140.0 ms")
    gains = segment(name, image, machine(fixed_ms=10.0))
    assert gains.reason == ""
    assert gains.work < 0.6 and gains.macs < gains.dense_macs


@pytest.mark.parametrize("name", BY_TILES)
def test_dense_runs_where_the_image_is_too_small_for_tiles(name: str, segment: Segment) -> None:
    assert_is_dense(segment(name, torch.rand(3, 10, 12)), "small for tiles of 32 px")


@pytest.mark.parametrize("name", ADAPTIVE)
def test_dense_runs_where_everything_is_asked_for(name: str, segment: Segment) -> None:
    result = segment(name, torch.rand(3, *SIZE), budget=1.0)
    assert_is_dense(result, "everything at full resolution is what the dense network computes")


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_budget_buys_no_decision(name: str) -> None:
    """Nothing is looked at first where all is computed anyway."""
    network, image = ordinary(name), torch.rand(2, 3, *SIZE)
    method = make(name, network, budget=1.0)
    assert len(answer(method, image).trace.steps) == 1
    assert count_macs(lambda: method(image)).convolution == count_macs(lambda: network(image)).convolution
