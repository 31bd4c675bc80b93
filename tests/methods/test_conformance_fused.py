"""The laws of the methods, on networks whose layers are joined."""

from __future__ import annotations

import pytest
import test_conformance
import torch
from test_conformance import (  # noqa: F401
    NAMES,
    image,
    make,
    test_a_deep_copy_runs_on_its_own_weights,
    test_a_still_image_gives_the_same_answer_with_its_memory,
    test_counted_macs_are_those_of_the_trace,
    test_images_of_a_batch_do_not_influence_one_another,
    test_saved_weights_give_the_same_answer_in_another_instance,
    test_the_network_gives_the_same_dense_answer_once_a_method_has_it,
    test_the_same_call_gives_the_same_answer,
    test_the_whole_budget_gives_the_dense_answer,
)

import samples
from foveal.fusion import fuse
from foveal.fusion.layers import Convolve
from foveal.methods import Segmenter


@pytest.fixture(autouse=True)
def networks_are_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nano", "headless"):
        monkeypatch.setattr(test_conformance, name, lambda name=name: fuse(getattr(samples, name)()))


@pytest.fixture(params=NAMES)
def method(request: pytest.FixtureRequest, networks_are_fused: None) -> Segmenter:
    return make(request.param)


def test_the_methods_have_fused_networks(method: Segmenter) -> None:
    assert any(isinstance(module, Convolve) for module in method.network.modules())


@torch.no_grad()
def test_a_fused_network_gives_the_answer_of_the_network_it_was() -> None:
    network, pixels = samples.nano(), torch.rand(2, 3, 97, 131)
    fast, plain = (make("segblocks", n, budget=0.6)(pixels) for n in (fuse(network), network))
    torch.testing.assert_close(fast.logits, plain.logits, rtol=0, atol=1e-4)
