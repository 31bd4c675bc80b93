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


class Light(nn.Module):
    """Few convolutions, and logits of many classes, whose enlargement no plan saves."""

    def __init__(self, depth: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.body = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()) for _ in range(depth))
        )
        self.head = nn.Conv2d(16, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.head(self.body(self.stem(image)))
        return nn.functional.interpolate(x, size=image.shape[2:], mode="bilinear")


def test_networks_without_such_modules_keep_the_budget_by_their_tiles() -> None:
    model = foveal.adapt(lively(Light(40, 2)))
    part, dense = model(IMAGE, budget=0.5, always_adapt=True), model(IMAGE, budget=1.0).macs
    assert float(part.work.mean()) == pytest.approx(0.5, abs=0.01)
    assert part.macs / dense == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("method", ["coarse_to_fine", "segblocks"])
@pytest.mark.parametrize("budget", [0.3, 0.5, 0.7])
def test_what_a_network_takes_beside_its_tiles_counts(method: str, budget: float) -> None:
    model = foveal.adapt(lively(Light(2, 12)), method=method)
    assert not model.spec.dense_modules and not model.engine.why_not
    image = picture((512, 768))
    dense = model(image, budget=1.0).macs
    part = model(image, budget=budget, always_adapt=True)
    assert part.macs / dense == pytest.approx(budget, rel=0.02)
    assert float(part.work.mean()) < 0.98 * budget, "tiles get less than the budget"


def test_a_budget_below_what_lies_beside_the_tiles_is_refused_with_the_least() -> None:
    model, image = foveal.adapt(lively(Light(2, 12))), picture((512, 768))
    with pytest.raises(ValueError, match=r"beside its tiles, so that plans take 0\.\d\d or more") as found:
        model(image, budget=0.08, always_adapt=True)
    least = float(re.findall(r"0\.\d\d(?= or)", str(found.value))[0])
    dense = model(image, budget=1.0).macs
    assert model(image, budget=least, always_adapt=True).macs / dense <= least


def test_one_level_that_falls_short_of_a_budget_is_told() -> None:
    model = foveal.adapt(lively(WithAttention(96, 2)))
    dense = model(IMAGE, budget=1.0).macs
    with pytest.raises(ValueError, match="must see the whole map in network") as found:
        model(IMAGE, budget=0.4, always_adapt=True)
    below, above = map(float, re.findall(r"0\.\d\d(?= or)", str(found.value)))
    assert 0.2 < below < 0.39 and above > 0.41, "half of a budget is not enough"
    for budget in (below, above):
        part = model(IMAGE, budget=budget, always_adapt=True)
        assert part.macs / dense == pytest.approx(budget, abs=0.012)
