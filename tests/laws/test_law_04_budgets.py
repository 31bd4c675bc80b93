"""Law 4: budgets are kept to one tile on every image, the decision included, and always alike."""

from __future__ import annotations

from math import prod
from random import Random

import pytest
import torch
from hypothesis import given, settings

from conformance import ADAPTIVE, BY_TILES, Networks, answer, make
from samples import error_of
from strategies import random_size, sources

TILE = 16


@pytest.mark.parametrize("budget", [0.2, 0.4, 0.7, 0.95])
@pytest.mark.parametrize("size", [(128, 192), (150, 100), (97, 203)])
@pytest.mark.parametrize("name", ADAPTIVE)
def test_the_budget_is_kept_for_every_image(name: str, size: tuple[int, int], budget: float) -> None:
    method = make(name, Networks().headless(name), budget=budget, tile=TILE, levels=2)
    prediction = answer(method, torch.rand(3, 3, *size))
    assert float(prediction.trace.work.max()) <= budget + TILE**2 / prod(size) + 1e-9
    assert len(prediction.trace.work) == 3


@pytest.mark.parametrize("name", ADAPTIVE)
@settings(max_examples=15)
@given(source=sources())
def test_any_budget_is_kept_or_said_to_be_too_small(name: str, source: Random) -> None:
    torch.manual_seed(source.randint(0, 2**30))
    size, budget = random_size(source, TILE, 6), source.uniform(0.05, 0.99)
    image = torch.rand(3, 3, *size) * torch.tensor([1.0, 0.1, 0.0]).view(3, 1, 1, 1)
    method = make(name, Networks().headless(name), budget=budget, tile=TILE, levels=source.randint(1, 3))
    message = error_of(lambda: answer(method, image))
    if message:
        assert message.startswith("budget is ") and "raise the budget" in message
        assert method.least_work(size) > budget
        return
    first, second = answer(method, image).trace, answer(method, image).trace
    assert float(first.work.max()) <= budget + TILE**2 / prod(size) + 1e-9
    assert (first.levels is not None) == (name in BY_TILES)
    assert first.levels is None or torch.equal(first.levels, second.levels)
    assert torch.equal(first.work, second.work)
