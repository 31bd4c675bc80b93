"""Law 1: all tiles at level 0 give the answer of the dense network."""

from __future__ import annotations

from random import Random

import pytest
import torch
from hypothesis import given, settings

from conformance import NAMES, Networks, answer, assert_close, make
from foveal.fusion.layers import Convolve
from foveal.methods import METHODS
from foveal.tiles import split
from strategies import sources
from tile_runs import EXACT, everything, network_and_image

# The tile engine


@settings(max_examples=50)
@given(source=sources())
def test_everything_at_level_0_is_the_dense_network(source: Random) -> None:
    network, image = network_and_image(source)
    assert_close(network(split(image, everything(image))).dense(), network(image), EXACT)


@given(source=sources())
def test_single_precision_errs_as_little_as_the_dense_network(source: Random) -> None:
    network, image = network_and_image(source)
    exact = network(image)
    network, image = network.float(), image.float()
    unavoidable = (network(image).double() - exact).abs().max().item()
    found = network(split(image, everything(image))).dense()
    assert (found.double() - exact).abs().max().item() <= 4 * unavoidable + 1e-6 * exact.abs().max().item()


# Every method


@pytest.mark.parametrize("size", [(64, 64), (33, 47), (100, 70), (1, 97), (5, 3)])
@pytest.mark.parametrize("name", NAMES)
def test_the_whole_budget_gives_the_dense_answer(
    name: str, size: tuple[int, int], networks: Networks
) -> None:
    method, image = make(name, networks.nano(name), budget=1.0), torch.rand(2, 3, *size)
    prediction = answer(method, image)
    with torch.no_grad():
        assert_close(prediction.logits, method.dense()(image))
    assert torch.equal(prediction.labels, method.dense_labels(image))


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_budget_gives_the_dense_answer_in_double_precision(name: str) -> None:
    method, image = make(name, budget=1.0).double(), torch.rand(1, 3, 70, 50, dtype=torch.float64)
    prediction = answer(method, image)
    assert prediction.logits.dtype == torch.float64
    with torch.no_grad():
        assert_close(prediction.logits, method.dense()(image), 1e-12)


# Networks whose layers are joined


@pytest.mark.parametrize("name", METHODS)
def test_methods_run_fused_networks_as_they_are_given(name: str) -> None:
    method = make(name, Networks(fused=True).nano(name))
    assert any(isinstance(module, Convolve) for module in method.network.modules())


@pytest.mark.parametrize("name", NAMES)
def test_a_fused_network_gives_the_answer_of_the_network_it_was(name: str) -> None:
    torch.manual_seed(0)
    plain = make(name, Networks().nano(name), budget=0.6)
    torch.manual_seed(0)
    fused = make(name, Networks(fused=True).nano(name), budget=0.6)
    image = torch.rand(2, 3, 97, 131)
    assert_close(answer(fused, image).logits, answer(plain, image).logits, 1e-4)
