"""Relaxed gates and their budget."""

from __future__ import annotations

import math

import pytest
import torch

from foveal.objectives.gates import GateBudget, straight_through


def test_gates_are_open_or_closed_and_have_the_gradient_of_a_sigmoid() -> None:
    logits = torch.tensor([[[-3.0, -0.1, 0.1, 3.0]]], requires_grad=True)
    mask = straight_through(logits, 0.5, noisy=False)
    assert mask.tolist() == [[[0, 0, 1, 1]]]
    mask.sum().backward()
    soft = (logits / 0.5).sigmoid()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, (soft * (1 - soft) / 0.5).detach())


def test_noise_opens_gates_as_often_as_their_probability_says() -> None:
    torch.manual_seed(0)
    for logit in (-2.0, 0.0, 1.0):
        mask = straight_through(torch.full((1, 300, 300), logit), 0.66, noisy=True)
        assert float(mask.mean()) == pytest.approx(1 / (1 + math.exp(-logit)), abs=0.01)


def test_squares_share_their_noise() -> None:
    mask = straight_through(torch.zeros(2, 9, 14), 0.66, noisy=True, side=4)
    for row in range(0, 9, 4):
        for column in range(0, 14, 4):
            part = mask[:, row : row + 4, column : column + 4]
            assert torch.equal(part, part[:, :1, :1].expand_as(part))
    assert 0 < float(mask.mean()) < 1


def test_bounds_open_from_the_target_to_everything() -> None:
    budget = GateBudget(0.3, 0.33)
    assert budget.bounds(0) == pytest.approx((0.3, 0.3))
    assert budget.bounds(0.33) == pytest.approx((0, 1)) == budget.bounds(0.9)
    low, high = budget.bounds(0.165)  # half of the way
    assert (low, high) == pytest.approx((0.15, 0.65))


def test_the_budget_is_of_all_units_together_and_at_first_of_each() -> None:
    budget, spent = GateBudget(0.5), torch.tensor([1.0, 0.25], requires_grad=True)
    assert float(budget(spent, [1.0, 2.0], 0.9).detach()) == pytest.approx(0.0)
    start = budget(spent, [1.0, 2.0], 0.0)
    assert float(start.detach()) == pytest.approx((0.5**2 + 0.25**2) / 2)
    start.backward()
    assert spent.grad is not None and float(spent.grad[0]) > 0 > float(spent.grad[1])
    whole = budget(torch.tensor([1.0, 1.0]), [1.0, 2.0], 1.0)
    assert float(whole) == pytest.approx(0.25)
