"""Law 8: the same seed and the same call give the same answer, bit by bit."""

from __future__ import annotations

from random import Random

import pytest
import torch
from hypothesis import given
from torch import Tensor

from conformance import NAMES, Networks, answer, make
from foveal.geometry.plan import Plan
from foveal.tiles import split
from strategies import sources
from tile_runs import TILE, a_plan, network_and_image


@given(source=sources())
def test_the_same_call_gives_the_same_bits(source: Random) -> None:
    network, image = network_and_image(source)
    plan = a_plan(source, image, 0.2)
    first, second = (
        network(split(image, Plan(plan.levels.clone(), TILE, plan.size))).dense() for _ in range(2)
    )
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_call_gives_the_same_answer(name: str, image: Tensor, networks: Networks) -> None:
    method = make(name, networks.nano(name))
    first = answer(method, image)
    torch.rand(7)
    second = answer(method, image)
    assert torch.equal(first.logits, second.logits)
    assert torch.equal(first.trace.work, second.trace.work)
