"""Numbers that are none are refused: in images anywhere, and in what a network gives."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import foveal
from foreign import UNet, lively, picture
from foveal.fusion import fuse
from foveal.kernels import build
from foveal.program import Program, compile_network
from foveal.program.quantise import find_scales, in_bf16, in_int8
from foveal.program.settings import CoarseToFineRun, DenseRun, Settings

SIZE = (160, 224)
PLACES = [(0, 0, 0, 0), (1, 2, 159, 223), (0, 1, 77, 100), (1, 0, 33, 1)]
BUDGETS = [0.3, 0.6, 1.0]


@pytest.fixture(scope="module", params=["program", "layers"])
def model(request: pytest.FixtureRequest) -> foveal.AdaptiveModel:
    network: nn.Module = UNet() if request.param == "program" else nn.Sequential(UNet(), nn.Mish())
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
    for network in (UNet(), nn.Sequential(UNet(), nn.Mish())):
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
    with pytest.raises(ValueError, match="images hold numbers from"):
        program.run(image * 8e37, settings)
    image[..., 1::5, 1::7] *= 8e37  # lines and columns that nobody looks at before
    with pytest.raises(ValueError, match="the network gives NaN or infinity; check its weights"):
        program.run(image, settings)


class Overflowing(nn.Module):
    """Large weights twice; larger ones, or a brighter image, make infinity of both signs, whose sum is NaN.

    What follows hides it, if it can.
    """

    def __init__(self, hider: nn.Module) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, 1, 1)
        self.second = nn.Conv2d(16, 16, 3, 1, 1)
        self.third = nn.Conv2d(16, 32, 1)
        self.hider = hider
        self.last = nn.Conv2d(32, 4, 1)
        with torch.no_grad():
            for layer in (self.first, self.second):
                nn.init.constant_(layer.weight, 1e10)
                layer.weight[::2] *= -1
                nn.init.zeros_(layer.bias)
            self.second.weight[:, ::2] *= -1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.hider(self.third(self.second(self.first(x)))))


HIDERS = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "maximum": lambda: nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.ReLU()),
    "depthwise": lambda: nn.Sequential(nn.Conv2d(32, 32, 3, 1, 1, groups=32), nn.ReLU6()),
    "norm": lambda: nn.Sequential(nn.BatchNorm2d(32), nn.ReLU()),
}
OVERFLOW, BRIGHT = "the network gives NaN or infinity; check its weights", 1e20
KEPT = "first", "second"
"""Layers whose maps stay in bfloat16."""


@pytest.fixture(params=HIDERS)
def overflowing(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return Overflowing(HIDERS[request.param]()).eval()


def test_no_layer_hides_an_overflow_in_pytorch(overflowing: nn.Module) -> None:
    image = picture(size=SIZE) * BRIGHT
    assert not overflowing(image).isfinite().any()
    assert not fuse(overflowing)(image).isfinite().any()


@pytest.mark.skipif(not build.available(), reason="no compiler")
@pytest.mark.parametrize("precision", ["f32", "bf16", "int8", "bf16 before int8"])
@pytest.mark.parametrize("settings", [DenseRun(), CoarseToFineRun(budget=0.5, tile=32)])
def test_no_step_of_a_program_hides_an_overflow(
    overflowing: nn.Module, precision: str, settings: Settings
) -> None:
    program = reduced(with_larger_weights(compile_network(overflowing)), precision)
    dark = torch.zeros(1, 3, *SIZE).numpy()
    assert program.run(dark, settings).labels.shape == (1, *SIZE)
    if precision != "int8":  # every map of it saturates before it could overflow
        with pytest.raises(ValueError, match=OVERFLOW):
            program.run(picture(size=SIZE).numpy(), settings)


def with_larger_weights(program: Program) -> Program:
    """Give the first two layers weights of 1e30, with which no network can be compared with its program."""
    tables, numbers = program.tables, program.tables.numbers.copy()
    for step, name in zip(tables.steps, tables.names, strict=True):
        if name.startswith(KEPT):
            taps = step.rows * step.columns
            count = taps * tables.maps[step.input].channels * tables.maps[step.out].channels
            numbers[step.weight : step.weight + count] *= BRIGHT
    return Program(replace(tables, numbers=numbers))


def reduced(program: Program, precision: str) -> Program:
    if precision == "f32":
        return program
    if precision == "bf16":
        return in_bf16(program)
    scales = find_scales(program, [torch.zeros(1, 3, *SIZE).numpy()])
    kept = {
        s.out for s, name in zip(program.tables.steps, scales.steps, strict=True) if name.startswith(KEPT)
    }
    return in_int8(program, replace(scales, kept=() if precision == "int8" else tuple(kept)))
