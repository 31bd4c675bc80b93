"""Integration of scores over cells, and policies that score nothing."""

from __future__ import annotations

from math import prod
from random import Random

import pytest
import torch
from hypothesis import given, settings
from torch.nn import functional as F

from foveal.geometry.plan import Plan, grid
from foveal.methods import SegBlocks
from foveal.policies import (
    RandomPlans,
    ScoredPolicy,
    Uniform,
    View,
)
from foveal.policies.budgeted import per_cell
from foveal.policies.uncertainty import entropy
from policy_cases import SIZE, TILE, certain
from samples import headless
from strategies import random_plan, sources

# Integration over cells


@settings(max_examples=50)
@given(source=sources())
def test_per_cell_integrates_what_lies_in_the_image(source: Random) -> None:
    torch.manual_seed(source.randint(0, 2**30))
    size = tuple(source.choice([source.randint(1, 8), source.randint(1, 100)]) for _ in range(2))
    tile, stride = source.choice([3, 6, 8, 12, 20, 32]), 2 ** source.randint(0, 5)
    density = torch.rand(2, *(-(-side // stride) for side in size))
    before = density.clone()
    pixels = density.double().repeat_interleave(stride, 1).repeat_interleave(stride, 2)
    pixels = pixels[:, : size[0], : size[1]]
    rows, columns = grid(size, tile)
    whole = F.pad(pixels, (0, columns * tile - size[1], 0, rows * tile - size[0]))
    expected = whole.view(2, rows, tile, columns, tile).mean((2, 4))
    found = per_cell(density, size, tile)
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close((found * tile**2).sum(), pixels.sum().float(), rtol=1e-4, atol=1e-4)
    assert torch.equal(density, before)


def test_one_map_serves_every_step_and_a_short_tuple_its_last() -> None:
    view = View(torch.rand(1, 3, 128, 128))
    density = torch.rand(1, 32, 32)
    plans = [ScoredPolicy(lambda _, m=m: m, 0.4, 8, 3)(view) for m in (density, (density,), (density,) * 3)]
    assert torch.equal(plans[0].levels, plans[1].levels)
    assert torch.equal(plans[0].levels, plans[2].levels)


# Plans that ask for nothing


@pytest.mark.parametrize("level", [0, 1, 2])
def test_uniform_puts_every_image_at_its_level(level: int) -> None:
    plan = Uniform(16, level)(View(torch.rand(2, 3, 33, 70)))
    assert torch.equal(plan.levels, Plan.uniform(2, (33, 70), 16, level).levels)
    assert plan.size == (33, 70)


@settings(max_examples=40)
@given(source=sources())
def test_random_plans_stay_within_their_budgets(source: Random) -> None:
    torch.manual_seed(source.randint(0, 2**30))
    size = (source.randint(20, 150), source.randint(20, 150))
    low = source.uniform(0.01, 0.9)
    policy = RandomPlans((8, 16, 24), source.randint(0, 3), (low, source.uniform(low, 1.0)))
    logits = torch.randn(2, 5, -(-size[0] // 4), -(-size[1] // 4)) if source.random() < 0.5 else None
    plan = policy(View(torch.rand(2, 3, *size), logits=logits))
    one = plan.tile**2 / prod(size)
    dearest_start = min(1, policy.max_level)  # a plan draws its coarsest level, from 1 on
    cheapest = prod(-(-cells >> dearest_start) for cells in grid(size, plan.tile)) * one
    assert plan.tile in policy.tiles
    assert int(plan.levels.max()) <= policy.max_level
    if cheapest < 1:
        assert float(plan.work.max()) <= max(policy.budgets[1], cheapest) + one + 1e-9
        assert float(plan.work.min()) > min(policy.budgets[0] - 2 * one, 1) - 1e-9


def test_random_plans_differ_and_follow_the_seed() -> None:
    view = View(torch.rand(1, 3, 128, 128))
    policy = RandomPlans()
    torch.manual_seed(3)
    first = [policy(view) for _ in range(20)]
    torch.manual_seed(3)
    second = [policy(view) for _ in range(20)]
    for one, other in zip(first, second, strict=True):
        assert one.tile == other.tile
        assert torch.equal(one.levels, other.levels)
    assert {plan.tile for plan in first} == set(policy.tiles)
    assert len({float(plan.work) for plan in first}) > 5


def test_random_plans_above_a_budget_of_1_are_at_full_resolution() -> None:
    plan = RandomPlans((16,), 2, (1.0, 1.5))(View(torch.rand(1, 3, 64, 64)))
    assert plan.levels.max() == 0


def test_random_plans_lean_to_doubt_if_they_see_it() -> None:
    logits = certain(4)
    logits[:, :, :32] = 0.0
    view = View(torch.rand(1, 3, *SIZE), logits=logits)
    doubt = per_cell(entropy(view), SIZE, TILE)[0]
    plans = [RandomPlans((TILE,), 2, (0.3, 0.6))(view).levels[0] for _ in range(20)]
    in_doubt, sure = (
        sum(float((plan == 0)[mask].double().mean()) for plan in plans) for mask in (doubt > 1, doubt < 1)
    )
    assert in_doubt > 2 * sure


def test_a_policy_sees_what_another_plan_left_only_through_the_view() -> None:
    """Any callable from a view to a plan will do."""
    image = torch.rand(2, 3, 64, 64)
    plan = random_plan(Random(1), 2, (64, 64), 8, 2)
    assert SegBlocks(headless(), lambda view: plan)(image).trace.plan is plan
