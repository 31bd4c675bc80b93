"""Budgets hold for all of a network, what sees the whole map included, or are refused with the smallest."""

from __future__ import annotations

import re

import pytest
from torch import Tensor, nn

import foveal
from foreign import lively
from foveal.calibration.latency import picture


class Attention(nn.Module):
    """Every sample looks at all others, or at one of `step` times `step`."""

    def __init__(self, channels: int, step: int) -> None:
        super().__init__()
        self.step = step
        self.mixed = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        seen = x[:, :, :: self.step, :: self.step].flatten(2).transpose(1, 2)
        weights = (self.mixed(x.flatten(2).transpose(1, 2)) @ seen.transpose(1, 2)).softmax(2)
        return x + (weights @ seen).transpose(1, 2).reshape(x.shape)


class WithAttention(nn.Module):
    """Convolutions with attention between them."""

    def __init__(self, width: int, step: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1))
        self.attention = Attention(16, step)
        self.head = nn.Sequential(
            nn.Conv2d(16, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()
        )
        self.logits = nn.Conv2d(width, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.logits(self.head(self.attention(self.stem(image))))
        return nn.functional.interpolate(x, size=image.shape[2:], mode="bilinear")


@pytest.fixture(scope="module")
def model() -> foveal.AdaptiveModel:
    return foveal.adapt(lively(WithAttention(96, 6)))


IMAGE = picture((256, 384))


@pytest.mark.parametrize("budget", [0.45, 0.6, 0.8])
def test_all_of_the_network_keeps_the_budget(model: foveal.AdaptiveModel, budget: float) -> None:
    assert model.spec.dense_modules, "the attention is found"
    assert model.engine.why_not
    dense = model(IMAGE, budget=1.0).macs
    part = model(IMAGE, budget=budget, always_adapt=True)
    assert part.macs / dense == pytest.approx(budget, rel=0.02)
    assert float(part.work.mean()) < 0.97 * budget, "tiles get less than the budget"


class WithContext(WithAttention):
    """Convolutions with ordinary layers between them that are said to see the whole map."""

    def __init__(self) -> None:
        super().__init__(48, 1)
        self.attention = nn.Sequential(nn.Conv2d(16, 24, 3, padding=4, dilation=4), nn.Conv2d(24, 16, 1))


@pytest.mark.parametrize("budget", [0.5, 0.8])
def test_a_program_keeps_the_budget(budget: float) -> None:
    model = foveal.adapt(lively(WithContext()), dense_modules=("attention",))
    assert model.spec.dense_modules and not model.engine.why_not
    dense = model(IMAGE, budget=1.0).macs
    part = model(IMAGE, budget=budget, always_adapt=True)
    assert part.macs / dense == pytest.approx(budget, rel=0.03)
    assert float(part.work.mean()) < 0.97 * budget, "tiles get less than the budget"


def test_a_budget_between_what_plans_take_is_refused_with_the_nearest() -> None:
    model = foveal.adapt(lively(WithAttention(96, 1)))
    dense = model(IMAGE, budget=1.0).macs
    with pytest.raises(ValueError, match="must see the whole map in network") as found:
        model(IMAGE, budget=0.6, always_adapt=True)
    for budget in map(float, re.findall(r"0\.\d\d(?= or)", str(found.value))):
        part = model(IMAGE, budget=budget, always_adapt=True)
        assert part.macs / dense == pytest.approx(budget, abs=0.012)


def test_networks_without_such_modules_run_as_they_were_asked() -> None:
    model = foveal.adapt(lively(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))))
    assert float(model(IMAGE, budget=0.5, always_adapt=True).work.mean()) == pytest.approx(0.5, abs=0.01)
