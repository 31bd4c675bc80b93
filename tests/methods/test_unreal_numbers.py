"""Numbers that are none are refused: in images anywhere, and in what a network gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import foveal
from foreign import UNet, lively, picture
from foveal.program.settings import CoarseToFineRun, DenseRun, Settings

SIZE = (160, 224)
PLACES = [(0, 0, 0, 0), (1, 2, 159, 223), (0, 1, 77, 100), (1, 0, 33, 1)]
BUDGETS = [0.3, 0.6, 1.0]


@pytest.fixture(scope="module", params=["program", "layers"])
def model(request: pytest.FixtureRequest) -> foveal.AdaptiveModel:
    network: nn.Module = UNet() if request.param == "program" else nn.Sequential(UNet(), nn.Hardswish())
    made = foveal.adapt(lively(network))
    assert (made.engine.program is None) == (request.param == "layers")
    return made


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", PLACES)
def test_in_images(model: foveal.AdaptiveModel, place: tuple[int, ...], number: float) -> None:
    image = picture(size=SIZE, count=2)
    image[place] = number
    for budget in BUDGETS:
        with pytest.raises(ValueError, match="images hold NaN or infinity; give finite numbers"):
            model(image, budget=budget, always_adapt=True)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_in_logits(number: float) -> None:
    for network in (UNet(), nn.Sequential(UNet(), nn.Hardswish())):
        model = foveal.adapt(lively(network))
        image = picture(size=SIZE, count=2)
        for budget in BUDGETS:
            model(image, budget=budget, always_adapt=True)
        last = [module for module in model.network.modules() if isinstance(module, nn.Conv2d)][-1]
        with torch.no_grad():
            last.weight[1, 0] = number
        for budget in BUDGETS:
            with pytest.raises(ValueError, match="NaN or infinity"):
                model(image, budget=budget, always_adapt=True)


def test_activations_that_overflow_are_no_class() -> None:
    model = foveal.adapt(lively(UNet()))
    with torch.no_grad():
        for module in model.network.modules():
            if isinstance(module, nn.Conv2d):
                module.weight *= 1e12
    with pytest.raises(ValueError, match="the network gives NaN or infinity; check its weights"):
        model(picture(size=SIZE), budget=0.4, always_adapt=True)


@pytest.mark.parametrize("settings", [DenseRun(), CoarseToFineRun(budget=0.5, tile=32)])
def test_programs_notice_an_overflow(settings: Settings) -> None:
    program = foveal.adapt(lively(UNet())).engine.program
    assert program is not None
    image = picture(size=SIZE).numpy()
    assert program.run(image, settings).labels.shape == (1, *SIZE)
    with pytest.raises(ValueError, match="the network gives NaN or infinity; check its weights"):
        program.run(image * 8e37, settings)
