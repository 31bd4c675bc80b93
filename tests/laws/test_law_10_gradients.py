"""Law 10: gradients reach every trainable parameter."""

from __future__ import annotations

from random import Random

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.nn import functional as F

from conformance import CLASSES, TRAINABLE, assert_close, make
from foveal.geometry.plan import Plan
from foveal.tiles import split
from networks import RandomNetwork
from strategies import plans, random_plan, sources
from tile_runs import TILE, a_plan, everything, network_and_image

# The tile engine


@settings(max_examples=30)
@given(source=sources())
def test_gradients_reach_every_parameter_as_in_the_dense_network(source: Random) -> None:
    network, image = network_and_image(source)
    weight = torch.randn_like(network(image))
    parameters = list(network.parameters())
    expected = torch.autograd.grad((network(image) * weight).sum(), parameters)
    out = network(split(image, everything(image))).dense()
    for found, slope in zip(torch.autograd.grad((out * weight).sum(), parameters), expected, strict=True):
        assert_close(found, slope, 1e-9)


@settings(max_examples=30)
@given(source=sources())
def test_gradients_of_mixed_levels_and_skipped_tiles_are_finite_and_reach_all(source: Random) -> None:
    network, image = network_and_image(source)
    plan = a_plan(source, image, source.choice([0.0, 0.4]))
    if not plan.tiles.sum():
        return
    network(split(image, plan)).dense().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("seed", range(4))
def test_gradcheck_through_mixed_levels_and_skipped_tiles(seed: int) -> None:
    source, size = Random(seed), (11, 13)
    layers = [
        nn.Conv2d(1, 2, 3, 2, 1),
        nn.SiLU(),
        nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        nn.Conv2d(2, 2, 3, padding=2, dilation=2, groups=2),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Conv2d(2, 1, 1),
    ]
    network = nn.Sequential(*layers).double()
    plan = random_plan(source, 1, size, 4, 2, skip=0.2)
    image = torch.randn(1, 1, *size, dtype=torch.float64, requires_grad=True)
    weight = layers[0].weight.detach().clone().requires_grad_()

    def run(image: Tensor, weight: Tensor) -> Tensor:
        first = F.conv2d(split(image, plan), weight, None, 2, 1)
        out = network[1:](first)
        return (out * (1 + first.mean((2, 3), keepdim=True)[:, :1])).dense()

    assert torch.autograd.gradcheck(run, (image, weight))


@given(plan=plans((TILE,), max_level=2, cells=3))
def test_training_updates_every_parameter_and_statistic(plan: Plan) -> None:
    network = RandomNetwork(Random(3)).train()
    image = torch.randn(len(plan.levels), 3, *plan.size)
    if plan.tiles.sum() < 4 or min(plan.size) < 16:
        return
    before = [buffer.clone() for buffer in network.buffers()]
    network(split(image, plan)).dense().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())
    assert all((now != then).any() for now, then in zip(network.buffers(), before, strict=True))


# Every method


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", TRAINABLE)
def test_the_loss_reaches_every_parameter_with_a_finite_gradient(name: str, training: bool) -> None:
    method = make(name).train(training)
    image, target = torch.rand(2, 3, 96, 96), torch.randint(0, CLASSES, (2, 96, 96))
    target[0, :10] = 255
    losses = method.loss(image, target)
    assert losses
    for loss in losses.values():
        assert loss.ndim == 0
        assert 0 < loss.item() < float("inf")
    sum(losses.values()).backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert bool((parameter.grad != 0).any()), name


@pytest.mark.parametrize("name", TRAINABLE)
def test_nothing_but_void_leaves_only_what_needs_no_labels(name: str) -> None:
    losses = make(name).loss(torch.rand(1, 3, 64, 64), torch.full((1, 64, 64), 255))
    labelled = {name for name in losses if not name.endswith(("consistency", "budget"))}
    assert labelled
    assert all(float(losses[name].detach()) == 0 for name in labelled)
