"""Law 5: images in a batch do not influence one another."""

from __future__ import annotations

from random import Random

import pytest
import torch
from hypothesis import given, settings

from conformance import NAMES, Networks, answer, assert_close, make
from foveal.geometry.plan import Plan
from foveal.tiles import split
from strategies import sources
from tile_runs import TILE, a_plan, network_and_image


@settings(max_examples=50)
@given(source=sources())
def test_an_image_gets_the_answer_that_it_gets_alone(source: Random) -> None:
    network, image = network_and_image(source)
    plan = a_plan(source, image, skip=source.choice([0.0, 0.3]))
    together = network(split(image, plan)).dense()
    for n, expected in enumerate(together):
        alone = Plan(plan.levels[n : n + 1], TILE, plan.size)
        found = network(split(image[n : n + 1], alone)).dense()[0]
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_method_decides_and_answers_alike_for_an_image_alone(name: str, networks: Networks) -> None:
    method, images = make(name, networks.nano(name)), torch.rand(3, 3, 100, 132)
    images[1] *= 0.2
    together = answer(method, images)
    for n in range(3):
        alone = answer(method, images[n : n + 1])
        for ours, theirs in zip(alone.trace.steps, together.trace.steps, strict=True):
            assert ours.work[0] == theirs.work[n]
            assert ours.plan is None or torch.equal(ours.plan.levels[0], theirs.plan.levels[n])
        assert_close(alone.logits[0], together.logits[n])
        assert torch.equal(alone.labels[0], together.labels[n])
