from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from foveal.objectives.policy_gradient import (
    GRADIENTS,
    PolicyLoss,
    advantage,
    block_means,
    expected_gradient,
    reinforce,
)
from samples import error_of


def gradient(loss: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(loss, logits)[0]


# Means


@pytest.mark.parametrize("size", [(16, 24), (17, 25), (3, 5), (1, 1), (8, 31)])
@pytest.mark.parametrize("block", [1, 4, 8])
def test_block_means_are_those_of_a_loop(size: tuple[int, int], block: int) -> None:
    values = torch.rand(2, *size) * 9
    found = block_means(values, block)
    assert found.shape == (2, -(-size[0] // block), -(-size[1] // block))
    for n, row, column in product(*map(range, found.shape)):
        top, left = row * block, column * block
        expected = values[n, top : top + block, left : left + block].mean()
        assert found[n, row, column].item() == pytest.approx(expected.item(), rel=1e-5)


# Advantage


def test_at_the_target_blocks_above_the_mean_loss_are_worth_a_closer_look() -> None:
    loss = torch.tensor([[[1.0, 2.0], [4.0, 5.0]]])
    fine = torch.tensor([[[True, False], [False, True]]])
    found = advantage(loss, fine, target=0.5, gamma=10.0)
    assert found.tolist() == [[[-2.0, -1.0], [1.0, 2.0]]]


@pytest.mark.parametrize("gamma", [0.0, 1.0, 10.0])
@pytest.mark.parametrize("target", [0.2, 0.75])
def test_the_threshold_moves_with_the_share_that_was_drawn(target: float, gamma: float) -> None:
    """A block is in balance where its loss is mean loss + gamma * (share - target)."""
    loss, fine = torch.rand(3, 4, 5), torch.rand(3, 4, 5) < 0.4
    threshold = loss.mean() + gamma * (fine.float().mean() - target)
    torch.testing.assert_close(advantage(loss, fine, target, gamma), loss - threshold)


def test_the_budget_is_the_only_thing_that_moves_the_mean() -> None:
    loss, fine = torch.rand(2, 4, 5), torch.arange(40).view(2, 4, 5) < 10
    assert advantage(loss, fine, 0.25, 10.0).mean().item() == pytest.approx(0, abs=1e-6)
    assert advantage(loss, fine, 0.35, 10.0).mean().item() == pytest.approx(1, abs=1e-6)
    assert advantage(loss, fine, 0.15, 10.0).mean().item() == pytest.approx(-1, abs=1e-6)


# Gradients


@pytest.mark.parametrize("drawn", [True, False])
@pytest.mark.parametrize("gain", [1.5, -1.5])
def test_every_draw_moves_a_logit_to_what_pays(drawn: bool, gain: float) -> None:
    logits = torch.tensor([[[0.3]]], requires_grad=True)
    loss = reinforce(logits, torch.tensor([[[drawn]]]), torch.tensor([[[gain]]]))
    chance = torch.tensor(0.3).sigmoid().item()
    expected = -gain * (1 - chance if drawn else chance)
    assert gradient(loss, logits).item() == pytest.approx(expected, rel=1e-5)


def test_many_draws_have_the_gradient_that_is_expected() -> None:
    """Fixed advantages, 100 000 draws: the error of the mean is below 1 %."""
    logits = torch.tensor([[[-1.5, -0.4, 0.2], [0.9, 1.5, 0.0]]], requires_grad=True)
    gains = torch.tensor([[[0.7, -2.0, 1.0], [-0.5, 1.2, 3.0]]])
    many = logits.expand(100_000, 2, 3)
    fine = torch.rand(many.shape) < many.detach().sigmoid()
    found = gradient(reinforce(many, fine, gains.expand_as(many)), logits)
    expected = gradient(expected_gradient(logits, gains), logits)
    torch.testing.assert_close(found, expected, rtol=0.03, atol=0)
    chance = logits.detach().sigmoid()
    torch.testing.assert_close(expected, -2 * gains * chance * (1 - chance) / 6)


def test_both_gradients_agree_where_a_gain_depends_on_the_other_blocks_only() -> None:
    """All draws of four blocks, each with its probability; the gain of a block is what its neighbours say."""
    logits = torch.tensor([-1.0, 0.3, 2.0, -0.2], requires_grad=True)
    chance, weight = logits.detach().sigmoid(), torch.randn(4, 4).fill_diagonal_(0)
    sums = [torch.zeros(4), torch.zeros(4)]
    for draw in product([False, True], repeat=4):
        fine = torch.tensor(draw)
        probability = torch.where(fine, chance, 1 - chance).prod()
        gains = weight @ fine.float() + 0.5
        sums[0] += probability * gradient(reinforce(logits, fine, gains), logits)
        sums[1] += probability * gradient(expected_gradient(logits, gains), logits)
    torch.testing.assert_close(sums[0], sums[1], rtol=1e-4, atol=1e-6)


# The loss


def case() -> dict[str, Any]:
    logits = torch.randn(2, 2, 3, requires_grad=True)
    return {
        "logits": logits,
        "fine": torch.rand(2, 2, 3) < logits.detach().sigmoid(),
        "pixel_loss": torch.rand(2, 14, 20, requires_grad=True),
        "block": 8,
    }


def test_it_weighs_the_advantage_of_the_blocks() -> None:
    given = case()
    gains = advantage(block_means(given["pixel_loss"], 8), given["fine"], 0.3, 2.0)
    expected = {
        "reinforce": reinforce(given["logits"], given["fine"], gains),
        "expected": expected_gradient(given["logits"], gains),
    }
    for name in GRADIENTS:
        loss = PolicyLoss(target=0.3, gamma=2.0, weight=3.0, gradient=name)(**given)
        torch.testing.assert_close(loss, 3 * expected[name])


@pytest.mark.parametrize("name", GRADIENTS)
def test_only_the_policy_learns_from_it(name: str) -> None:
    given = case()
    PolicyLoss(gradient=name)(**given).backward()
    assert given["pixel_loss"].grad is None
    assert bool((given["logits"].grad != 0).all())


def test_its_defaults_are_those_of_the_paper() -> None:
    assert (PolicyLoss().gamma, PolicyLoss().weight, PolicyLoss().gradient) == (10.0, 4.0, "reinforce")


def test_other_gradients_are_refused() -> None:
    message = error_of(lambda: PolicyLoss(gradient="gumbel"))
    assert message == "gradient is 'gumbel'; give reinforce or expected"
