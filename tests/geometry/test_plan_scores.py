"""Plans from scores: budgets are kept, nested, and spent where it gains most."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from foveal.geometry.plan import Plan, check_budget, grid
from samples import error_of
from strategies import sources


class Request(NamedTuple):
    """Random arguments of `Plan.from_scores`, which the cheapest plan keeps."""

    scores: Tensor
    tile: int
    size: tuple[int, int]
    budget: float
    max_level: int

    @property
    def capacity(self) -> float:
        return self.budget * self.size[0] * self.size[1] / self.tile**2

    def plan(self, **changes: Any) -> Plan:
        return Plan.from_scores(*self._replace(**changes))

    def shared(self, **changes: Any) -> Plan:
        return Plan.shared(*self._replace(**changes))


@st.composite
def requests(draw: st.DrawFn) -> Request:
    source = draw(sources())
    tile, max_level, images = source.choice([4, 16]), source.randint(0, 3), source.randint(1, 3)
    size = source.randint(1, 9 * tile), source.randint(1, 9 * tile)
    budget = source.choice([1.0, source.uniform(0.01, 1)])
    while cheapest(size, tile, max_level) > budget * size[0] * size[1] / tile**2 + 1:
        max_level += 1
    shape = (images, *grid(size, tile))
    if source.random() < 0.4:
        shape = (max(max_level, 1), *shape)
    generator = torch.Generator().manual_seed(source.randint(0, 2**30))
    scores = torch.rand(shape, generator=generator)
    scores = (scores * 3).round() if source.random() < 0.4 else scores
    return Request(scores, tile, size, budget, max_level)


def cheapest(size: tuple[int, int], tile: int, max_level: int) -> int:
    return math.prod(-(-side // (tile << max_level)) for side in size)


@settings(max_examples=150)
@given(request=requests())
def test_the_budget_is_exceeded_by_at_most_one_tile(request: Request) -> None:
    plan = request.plan()
    whole = bool((plan.levels == 0).all())  # budget 1 means everything, padding at the edges included
    assert plan.tiles.max() <= request.capacity + 1 + 1e-9 or (whole and request.budget == 1)
    assert int(plan.levels.max()) <= request.max_level


@settings(max_examples=150)
@given(request=requests())
def test_another_split_into_four_would_not_fit(request: Request) -> None:
    plan = request.plan()
    for tiles, levels in zip(plan.tiles, plan.levels, strict=True):
        assert (levels == 0).all() or tiles + 3 > request.capacity + 1 - 1e-9


@settings(max_examples=150)
@given(request=requests(), more=st.floats(1, 3))
def test_plans_of_growing_budgets_are_nested(request: Request, more: float) -> None:
    larger = request.plan(budget=min(1.0, request.budget * more))
    assert (larger.levels <= request.plan().levels).all()


@settings(max_examples=60)
@given(request=requests())
def test_an_image_gets_the_plan_that_it_gets_alone(request: Request) -> None:
    together = request.plan()
    assert torch.equal(together.levels, request.plan().levels)
    axis = request.scores.ndim - 3
    for n, levels in enumerate(together.levels):
        alone = request.plan(scores=request.scores.narrow(axis, n, 1))
        assert torch.equal(alone.levels[0], levels)


@settings(max_examples=150)
@given(request=requests(), more=st.floats(1, 3))
def test_a_shared_budget_holds_for_the_batch(request: Request, more: float) -> None:
    images = request.scores.shape[-3]
    capacity = images * request.capacity
    if request.budget < 1 and images * cheapest(request.size, request.tile, request.max_level) > capacity + 1:
        with pytest.raises(ValueError, match="raise the budget"):
            request.shared()
        return
    plan = request.shared()
    whole = bool((plan.levels == 0).all())
    assert plan.tiles.sum() <= capacity + 1 + 1e-9 or (whole and request.budget == 1)
    assert whole or plan.tiles.sum() + 3 > capacity + 1 - 1e-9
    larger = request.shared(budget=min(1.0, request.budget * more))
    assert (larger.levels <= plan.levels).all()
    assert torch.equal(plan.levels, request.shared().levels)
    if images == 1:
        assert torch.equal(plan.levels, request.plan().levels)


def test_a_hard_image_gets_more_of_a_shared_budget() -> None:
    scores = torch.ones(3, 4, 4)
    scores[1] = 5
    alone = Plan.from_scores(scores, 8, (32, 32), 0.5)
    together = Plan.shared(scores, 8, (32, 32), 0.5)
    assert alone.tiles.tolist() == [7, 7, 7]
    assert together.tiles.tolist() == [4, 16, 4]


def test_an_image_without_gain_gets_nothing_of_a_shared_budget() -> None:
    scores = torch.zeros(2, 4, 4)
    scores[1] = torch.arange(16).view(4, 4)
    assert Plan.shared(scores, 8, (32, 32), 19 / 32).tiles.tolist() == [4, 16]


def test_a_step_is_worth_all_that_it_opens() -> None:
    opens, alone = torch.zeros(1, 4, 8), torch.zeros(1, 4, 8)
    opens[0, :, :4] = 1  # gains only at the last step: 16 for 15 tiles
    alone[0, :, 4:] = 0.125  # gains only at the first step: 2 for 3 tiles
    plan = Plan.from_scores(torch.stack([opens, alone]), 8, (32, 64), budget=16 / 32, max_level=2)
    assert plan.levels[0, :, :4].eq(0).all()
    assert plan.levels[0, :, 4:].eq(2).all()


@pytest.mark.parametrize("make", [Plan.from_scores, Plan.shared])
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_scores_that_are_no_numbers_are_refused(make: Callable[..., Plan], number: float) -> None:
    scores = torch.zeros(1, 2, 2)
    scores[0, 1, 1] = number
    with pytest.raises(ValueError, match="scores hold NaN or infinity; give finite gains per cell"):
        make(scores, 8, (16, 16), 0.5)


@pytest.mark.parametrize("make", [Plan.from_scores, Plan.shared])
def test_scores_of_too_few_levels_are_refused(make: Callable[..., Plan]) -> None:
    with pytest.raises(ValueError, match="scores are for 2 levels; max_level 3 needs 3 of them"):
        make(torch.zeros(2, 1, 8, 8), 8, (64, 64), 0.5, 3)


def test_too_small_a_shared_budget_names_the_cheapest_plan() -> None:
    with pytest.raises(ValueError, match=r"budget is 0\.1 .* everything at level 1, takes 0\.25; raise"):
        Plan.shared(torch.zeros(3, 8, 8), 8, (64, 64), budget=0.1)


def test_what_gains_most_is_refined_first() -> None:
    scores = torch.zeros(1, 8, 8)
    scores[0, 5, 2] = 1
    plan = Plan.from_scores(scores, 8, (64, 64), budget=(4 + 3 + 3 - 1) / 64, max_level=2)
    assert plan.levels[0, 4:6, 2:4].eq(0).all()
    assert plan.levels[0, 4:, :4].eq(1).sum() == 12
    assert plan.levels[0, :4].eq(2).all()


def test_a_split_at_the_edge_that_costs_nothing_comes_first() -> None:
    plan = Plan.from_scores(torch.zeros(1, 3, 3), 8, (24, 24), budget=3 / 9, max_level=1)
    assert plan.levels.tolist() == [[[1, 1, 1], [1, 1, 1], [1, 1, 0]]]


def test_scores_per_level_refine_each_level_by_its_own() -> None:
    scores = torch.zeros(2, 1, 4, 8)
    scores[1, 0, :, :4] = 1
    scores[0, 0, :, 4:] = 1
    plan = Plan.from_scores(scores, 8, (32, 64), budget=4 / 32, max_level=2)
    assert plan.levels.unique(dim=2).tolist() == [[[1, 2]] * 4]


@given(source=sources())
def test_the_whole_budget_gives_everything_at_level_0_on_whole_cells(source: Random) -> None:
    size = 16 * source.randint(1, 6), 16 * source.randint(1, 6)
    plan = Plan.from_scores(torch.rand(2, *grid(size, 16)), 16, size, 1.0, source.randint(0, 3))
    assert plan.levels.eq(0).all()


def test_too_small_a_budget_names_the_cheapest_plan() -> None:
    with pytest.raises(
        ValueError,
        match=r"budget is 0\.1 .* everything at level 1, takes 0\.25; raise the budget or allow level 2",
    ):
        Plan.from_scores(torch.zeros(1, 8, 8), 8, (64, 64), budget=0.1)


@pytest.mark.parametrize("budget", [0, -0.5, 1.01, math.nan, math.inf])
def test_a_budget_that_is_no_share_is_refused(budget: float) -> None:
    with pytest.raises(ValueError, match="must be above 0 and at most 1, a share of the dense work"):
        check_budget(budget)
    with pytest.raises(ValueError, match="must be above 0 and at most 1"):
        Plan.from_scores(torch.zeros(1, 1, 1), 8, (8, 8), budget)


def test_scores_of_another_grid_are_refused() -> None:
    with pytest.raises(ValueError, match=r"needs \[N, 8, 8\]"):
        Plan.from_scores(torch.zeros(1, 4, 4), 8, (64, 64), budget=1)


def test_a_step_that_gains_nothing_is_taken_for_what_it_opens() -> None:
    nothing, much = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8)
    much[0, 0, 0] = 1.0  # only the last step gains, and only in one cell
    plan = Plan.from_scores(torch.stack([much, nothing]), 8, (64, 64), budget=0.2, max_level=2)
    assert int(plan.levels[0, 0, 0]) == 0
    assert int(plan.levels[0, 7, 7]) == 2


@pytest.mark.parametrize(
    ("scores", "budget", "says"),
    [
        (
            torch.zeros(1, 2, 4),
            0.01,
            "budget is 0.01 of the dense work for the tiles; the cheapest plan, everything at level 1, takes "
            "0.25; raise the budget or allow level 2",
        ),
        (torch.full((1, 2, 4), torch.nan), 0.5, "scores hold NaN or infinity; give finite gains per cell"),
        (
            torch.zeros(1, 2, 4),
            "much",
            "budget is 'much'; give a number above 0 and at most 1, a share of the dense work",
        ),
    ],
)
def test_sentences_say_what_to_do_to_their_end(scores: Tensor, budget: Any, says: str) -> None:
    assert error_of(lambda: Plan.from_scores(scores, 16, (32, 64), budget, max_level=1)) == says
