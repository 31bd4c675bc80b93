"""Every policy keeps its budget, is deterministic and decides each image alone."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from random import Random

import pytest
import torch
from hypothesis import given, settings

from foveal.geometry.plan import grid
from foveal.methods import Prediction
from foveal.policies import (
    POLICIES,
)
from policy_cases import DECISION, NAMES, run
from samples import error_of, headless, nano
from strategies import sources


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25)
@given(source=sources())
def test_a_budget_is_kept_and_used_or_refused_with_reason(name: str, source: Random) -> None:
    torch.manual_seed(source.randint(0, 2**30))
    size = tuple(source.choice([source.randint(1, 40), source.randint(30, 200)]) for _ in range(2))
    tile, max_level, look = source.choice([8, 16, 20]), source.randint(0, 3), source.randint(1, 3)
    budget = source.choice([source.uniform(0.01, 1), source.uniform(0.3, 0.9), 1.0])
    image, network = torch.rand(1, 3, *size), headless()
    one = tile**2 / prod(size)
    entry = POLICIES[name]
    asked = budget if entry.budget is None else entry.budget
    max_level = 1 if name == "learned" else max_level
    cheapest = prod(-(-cells >> max_level) for cells in grid(size, tile)) * one
    spent = prod(-(-side >> look) for side in size) / prod(size) if entry.needs_pass and asked < 1 else 0.0
    if name == "learned" and asked < 1:
        spent = DECISION * prod(-(-side // (2 * tile)) * 2 * tile for side in size) / prod(size)

    def answer() -> Prediction:
        return run(name, image, network, budget=budget, tile=tile, max_level=max_level, coarse_level=look)

    if asked not in (0, 1) and (spent >= asked or cheapest > asked - spent + one + 1e-9):
        assert error_of(answer).startswith("budget is ")
        return
    trace = answer().trace
    plan = trace.plan
    assert plan is not None
    assert plan.size == size
    assert plan.tile == tile
    assert 0 <= int(plan.levels.min()) <= int(plan.levels.max()) <= max_level
    assert trace.work.tolist() == pytest.approx([plan.work.item() + spent])
    if asked == 1:
        assert plan.levels.max() == 0
    elif asked == 0:
        assert plan.levels.min() == max_level
    else:
        assert trace.work.item() <= asked + one + 1e-9
        dearest_split = 3 * one
        assert plan.levels.max() == 0 or trace.work.item() + dearest_split > asked + one - 1e-9


@pytest.mark.parametrize("name", NAMES)
def test_plans_are_deterministic_and_those_of_each_image_alone(name: str) -> None:
    network, image = nano(), torch.rand(3, 3, 100, 132)
    options = {"budget": 0.5, "tile": 32, "max_level": 1}
    together = run(name, image, network, **options).trace
    assert torch.equal(together.plan.levels, run(name, image, network, **options).trace.plan.levels)
    for n in range(3):
        alone = run(name, image[n : n + 1], network, **options).trace
        assert torch.equal(alone.plan.levels[0], together.plan.levels[n])
        assert alone.work.item() == pytest.approx(together.work[n].item())


@pytest.mark.parametrize("name", [name for name, entry in POLICIES.items() if entry.budget is None])
def test_more_budget_refines_more_and_unrefines_nothing(name: str) -> None:
    network, image = headless(), torch.rand(1, 3, 128, 160)
    plans = [run(name, image, network, budget=b, tile=16).trace.plan for b in (0.3, 0.4, 0.5, 0.7, 0.9)]
    for less, more in pairwise(plans):
        assert bool((more.levels <= less.levels).all())
        assert more.work > less.work


def test_the_coarse_pass_is_a_step_of_the_trace() -> None:
    steps = run(
        "entropy", torch.rand(2, 3, 64, 96), headless(), budget=0.5, tile=16, coarse_level=1
    ).trace.steps
    assert [step.name for step in steps] == ["coarse", "network"]
    assert steps[0].work.tolist() == [0.25, 0.25]
    assert steps[0].plan is None


def test_no_coarse_pass_runs_where_everything_is_computed_anyway() -> None:
    trace = run("entropy", torch.rand(1, 3, 64, 96), headless(), budget=1.0, tile=16).trace
    assert [step.name for step in trace.steps] == ["network"]
