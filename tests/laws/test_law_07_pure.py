"""Law 7: values are pure, no call changes what it is given."""

from __future__ import annotations

import copy
from random import Random

import pytest
import torch
from hypothesis import given
from torch import Tensor

from conformance import NAMES, Networks, answer, assert_close, make
from foveal.methods import AdaptiveSegmenter
from foveal.tiles import split
from strategies import sources
from tile_runs import a_plan, network_and_image, run_with_memory


@given(source=sources())
def test_no_call_changes_its_inputs(source: Random) -> None:
    network, image = network_and_image(source)
    _, memory = run_with_memory(network, image, a_plan(source, image), None)
    plan = a_plan(source, image, 0.5)
    tiles = split(image, plan, memory)
    values = [image, plan.levels, tiles.tiles, memory.layout.owner, *(r.tiles for r in memory.records)]
    values += network.state_dict().values()
    before = [value.clone() for value in values]
    network(tiles).dense()
    assert all(torch.equal(now, then) for now, then in zip(values, before, strict=True))


def test_a_call_changes_neither_image_nor_weights(method: AdaptiveSegmenter, image: Tensor) -> None:
    before = image.clone()
    weights = copy.deepcopy(method.state_dict())
    prediction = answer(method, image)
    kept = prediction.logits.clone()
    _ = prediction.labels, answer(method, image.flip(0))
    assert torch.equal(image, before)
    assert torch.equal(prediction.logits, kept)
    for key, value in method.state_dict().items():
        assert torch.equal(value, weights[key])


def test_the_network_gives_the_same_dense_answer_once_a_method_has_it(
    image: Tensor, networks: Networks
) -> None:
    network = networks.nano()
    with torch.no_grad():
        before = network(image)
        keys = list(network.state_dict())
        for name in NAMES:
            make(name, network)
            assert torch.equal(network(image), before)
            assert list(network.state_dict()) == keys


@pytest.mark.parametrize("name", NAMES)
def test_a_deep_copy_runs_on_its_own_weights(name: str, image: Tensor, networks: Networks) -> None:
    method = make(name, networks.nano(name), budget=1.0)
    before = answer(method, image).logits
    twin = copy.deepcopy(method)
    assert torch.equal(answer(twin, image).logits, before)
    with torch.no_grad():
        for parameter in twin.network.head.context.parameters():
            parameter.add_(0.1)
    assert torch.equal(answer(method, image).logits, before)
    changed = answer(twin, image).logits
    assert not torch.allclose(changed, before, atol=1e-3)
    with torch.no_grad():
        assert_close(changed, twin.dense()(image))
