"""Coarse to fine in training: the terms of its loss, and what they reach."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from foveal.methods import Aim, CoarseToFine
from foveal.methods.coarse_to_fine import CoarseToFineTraining
from refining import make
from samples import headless, nano


@pytest.fixture
def network() -> nn.Module:
    return headless()


def check_gradients(method: CoarseToFine, losses: dict[str, Tensor]) -> None:
    sum(losses.values()).backward()
    for name, parameter in method.network.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
        assert bool((parameter.grad != 0).any()), name


@pytest.mark.parametrize("taught", [False, True])
def test_without_labels_only_consistency_counts_and_reaches_everything(taught: bool) -> None:
    network = nano()
    teacher = copy.deepcopy(network).eval().requires_grad_(False) if taught else None
    method = CoarseToFine(network, coarse_level=2)
    method.aim, method.teacher = Aim(hardest=0.5), teacher
    losses = method.loss(torch.rand(1, 3, 64, 96), torch.full((1, 64, 96), 255))
    drawn = {"coarse_consistency", "refined_consistency"} | ({"dense_consistency"} if taught else set())
    assert set(losses) == {"dense", "coarse", "refined"} | drawn
    values = {name: float(loss.detach()) for name, loss in losses.items()}
    assert values["dense"] == values["coarse"] == values["refined"] == 0
    assert min(values["coarse_consistency"], values["refined_consistency"]) > 0
    assert not taught or values["dense_consistency"] == pytest.approx(0, abs=1e-6)
    check_gradients(method, losses)
    assert teacher is None or all(p.grad is None for p in teacher.parameters())


def test_labels_and_weights_count_where_there_are_some(network: nn.Module) -> None:
    image, target = torch.rand(2, 3, 48, 48), torch.randint(0, 5, (2, 48, 48))
    target[1] = 255
    method = make(network, coarse_level=2)
    method.aim = Aim(class_weight=torch.ones(5))
    method.training_part = CoarseToFineTraining(consistency=0.0)
    losses = method.loss(image, target)
    assert set(losses) == {"dense", "coarse", "refined"}
    assert all(float(loss.detach()) > 0 for loss in losses.values())
    check_gradients(method, losses)


@pytest.mark.parametrize("side", [40, 12, 7])
def test_a_small_view_can_be_trained_on(network: nn.Module, side: int) -> None:
    method = CoarseToFine(network, tile=32, coarse_level=2)
    for _ in range(4):
        losses = method.loss(torch.rand(1, 3, side, side), torch.zeros(1, side, side, dtype=torch.long))
        assert all(bool(loss.isfinite()) for loss in losses.values())


def test_what_is_drawn_in_training_is_drawn_from_the_seed_alone(network: nn.Module) -> None:
    image, target = torch.rand(1, 3, 64, 64), torch.zeros(1, 64, 64, dtype=torch.long)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(float(make(network, coarse_level=2).loss(image, target)["refined"].detach()))
    assert found[0] == found[1] != found[2]
