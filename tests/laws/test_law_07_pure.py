"""Law 7: values are pure, no call changes what it is given."""

from __future__ import annotations

import copy
from random import Random

import pytest
import torch
from hypothesis import given
from torch import Tensor

from conformance import NAMES, Networks, answer, assert_close, make, ordinary_kind
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
    made = {ordinary_kind(name): networks.nano(name) for name in NAMES}
    with torch.no_grad():
        before = {kind: network(image) for kind, network in made.items()}
        keys = {kind: list(network.state_dict()) for kind, network in made.items()}
        for name in NAMES:
            kind = ordinary_kind(name)
            make(name, made[kind])
            assert torch.equal(made[kind](image), before[kind])
            assert list(made[kind].state_dict()) == keys[kind]


@pytest.mark.parametrize("name", NAMES)
def test_a_deep_copy_runs_on_its_own_weights(name: str, image: Tensor, networks: Networks) -> None:
    method = make(name, networks.nano(name), budget=1.0)
    before = answer(method, image).logits
    twin = copy.deepcopy(method)
    assert torch.equal(answer(twin, image).logits, before)
    changed = {key: value + 0.1 for key, value in twin.network.head.state_dict().items()}
    twin.network.head.load_state_dict(changed)
    assert torch.equal(answer(method, image).logits, before)
    found = answer(twin, image).logits
    assert not torch.allclose(found, before, atol=1e-3)
    with torch.no_grad():
        assert_close(found, twin.dense()(image))
