"""Choices of refinements, compared with every set that can be chosen."""

from __future__ import annotations

import math
import time
from itertools import pairwise
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from forests import Case, cases, closed_sets, flat, shapes_of, within
from foveal.geometry.planner import choose, choose_above, choose_shared, rates
from strategies import sources


def budgets(case: Case) -> list[float]:
    """Some of the costs there are, a little less, and more than everything."""
    costs = case.all_costs.unique().tolist()
    costs = [*costs[:: 1 + len(costs) // 8], costs[-1]]
    return sorted({-1.0, *costs, *(c - 0.125 for c in costs), costs[-1] + 1, math.inf})


@settings(max_examples=150)
@given(case=cases(), price=st.integers(-50, 130).map(lambda n: n / 17))
def test_the_nodes_above_a_price_are_the_largest_of_all_best_choices(case: Case, price: float) -> None:
    corners = case.corners
    between = [(a + b) / 2 for a, b in pairwise(corners)]
    for p in [*corners, *between, 0.0, -20.0, 20.0, price]:
        worth = case.all_gains - p * case.all_costs
        best = closed_sets(case.shapes)[worth >= worth.max() - 1e-9].any(0)
        assert torch.equal(flat(choose_above(case.rates, p)), best)


@given(case=cases())
def test_no_rate_is_above_the_parents(case: Case) -> None:
    assert [r.dtype for r in case.rates] == [torch.float64] * len(case.shapes)
    for coarse, fine in pairwise(case.rates):
        for i in range(fine.shape[0]):
            for j in range(fine.shape[1]):
                assert fine[i, j] <= coarse[i // 2, j // 2]


@settings(max_examples=100)
@given(case=cases(), fill=st.booleans())
def test_at_a_corner_of_the_hull_nothing_gains_more_within_the_budget(case: Case, fill: bool) -> None:
    for rate in case.corners:
        if rate >= 0:
            corner = choose_above(case.rates, rate)
            masks = choose(case.rates, case.costs, case.cost(corner), fill)
            assert case.gain(masks) == case.most(case.cost(corner)) == case.gain(corner)


@settings(max_examples=100)
@given(case=cases(), fill=st.booleans())
def test_choices_keep_the_budget_are_closed_and_nested(case: Case, fill: bool) -> None:
    last: list[Tensor] = [torch.zeros(s, dtype=torch.bool) for s in case.shapes]
    for budget in budgets(case):
        masks = choose(case.rates, case.costs, budget, fill)
        assert [tuple(m.shape) for m in masks] == list(case.shapes)
        assert case.cost(masks) <= max(budget, 0)
        assert case.is_closed(masks)
        assert within(last, masks)
        last = masks


@settings(max_examples=100)
@given(case=cases())
def test_nodes_come_in_order_until_one_does_not_fit(case: Case) -> None:
    rate, cost = flat(case.rates).tolist(), flat(case.costs).tolist()
    order = sorted(range(len(rate)), key=lambda n: (-rate[n], n))
    for budget in (b for b in budgets(case) if b >= 0):
        masks = choose(case.rates, case.costs, budget)
        chosen = flat(masks)[order].tolist()
        count = sum(chosen)
        assert chosen == [True] * count + [False] * (len(order) - count)
        rest = [cost[n] for n in order[count:] if cost[n] > 0]
        assert not rest or case.cost(masks) + rest[0] > budget


@settings(max_examples=100)
@given(case=cases())
def test_without_filling_nothing_of_the_same_cost_gains_more(case: Case) -> None:
    corners = [choose_above(case.rates, r) for r in (math.inf, *case.corners) if r > 0]
    for budget in (b for b in budgets(case) if b >= 0):
        masks = choose(case.rates, case.costs, budget, fill=False)
        assert case.gain(masks) == case.most(case.cost(masks))
        assert torch.equal(flat(masks), flat([c for c in corners if case.cost(c) <= budget][-1]))


@given(source=sources())
def test_the_same_again_gives_the_same(source: Random) -> None:
    seed = source.randint(0, 2**30)
    case, again = Case(Random(seed)), Case(Random(seed))
    assert torch.equal(flat(case.rates), flat(again.rates))
    assert torch.equal(flat(choose(case.rates, case.costs, 4.0)), flat(choose(again.rates, again.costs, 4.0)))


def test_a_step_that_gains_little_is_worth_all_that_it_opens() -> None:
    gains = [torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 1, 0, 0], [1, 1, 0, 0]])]
    costs = [torch.full((1, 2), 3.0), torch.full((2, 4), 1.0)]
    found = rates(gains, costs)
    assert found[0].tolist() == [[4 / 7, 1 / 3]]
    assert found[1].tolist() == [[4 / 7, 4 / 7, 0, 0], [4 / 7, 4 / 7, 0, 0]]


def test_equal_rates_go_coarser_first_then_in_reading_order() -> None:
    ones = [torch.ones(1, 2), torch.ones(2, 3), torch.ones(4, 6)]
    found = rates(ones, ones)
    assert all(bool((r == 1).all()) for r in found)
    for budget in range(33):
        chosen = flat(choose(found, ones, budget))
        assert chosen.tolist() == [n < budget for n in range(32)]


def test_what_costs_nothing_comes_first_if_it_does_not_lose() -> None:
    gains, costs = [torch.tensor([[0.0, -1.0, 9.0]])], [torch.tensor([[0.0, 0.0, 1.0]])]
    found = rates(gains, costs)
    assert found[0].tolist() == [[math.inf, -math.inf, 9.0]]
    assert choose(found, costs, 0.0)[0].tolist() == [[True, False, False]]
    assert choose(found, costs, 5.0)[0].tolist() == [[True, False, True]]


def test_a_free_step_that_loses_is_not_taken_before_what_it_opens() -> None:
    gains, costs = (
        [torch.tensor([[-1.0]]), torch.tensor([[5.0]])],
        [torch.zeros(1, 1), torch.full((1, 1), 2.0)],
    )
    found = rates(gains, costs)
    assert [r.item() for r in found] == [2.0, 2.0]
    assert not flat(choose(found, costs, 1.9)).any()
    assert flat(choose(found, costs, 2.0)).all()


def test_losing_nodes_are_chosen_last_or_not_at_all() -> None:
    gains, costs = [torch.tensor([[-2.0, 3.0, -1.0, 0.0]])], [torch.ones(1, 4)]
    found = rates(gains, costs)
    assert choose(found, costs, 3.0)[0].tolist() == [[False, True, True, True]]
    assert choose(found, costs, 99.0)[0].tolist() == [[True] * 4]
    assert choose(found, costs, 99.0, fill=False)[0].tolist() == [[False, True, False, False]]


def test_a_forest_without_nodes_is_none() -> None:
    assert rates([], []) == choose([], [], 1.0) == choose_above([], 0.0) == []
    assert choose_shared([], [], 1.0) == []
    ones = [torch.ones(1, 1)]
    assert [len(m) for m in choose_shared([[], rates(ones, ones)], [[], ones], 1.0)] == [0, 1]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_refused(number: float) -> None:
    ones = [torch.ones(1, 1), torch.ones(2, 2)]
    bad = [torch.ones(1, 1), torch.tensor([[1, 1], [1, number]])]
    with pytest.raises(ValueError, match=r"^gains hold NaN or infinity; give a finite gain for every node$"):
        rates(bad, ones)
    with pytest.raises(ValueError, match=r"^costs hold NaN, infinity or a negative number; .* of 0 or more$"):
        rates(ones, bad)
    with pytest.raises(ValueError, match="costs hold NaN, infinity or a negative number"):
        choose(ones, bad, 1.0)


def test_a_budget_a_threshold_and_rates_are_numbers() -> None:
    ones = [torch.ones(1, 1)]
    with pytest.raises(
        ValueError, match=r"^budget is NaN; give what may be spent, in the unit of the costs$"
    ):
        choose(ones, ones, math.nan)
    with pytest.raises(
        ValueError, match=r"^threshold is NaN; give the gain that one unit of cost must bring$"
    ):
        choose_above(ones, math.nan)
    with pytest.raises(ValueError, match=r"^rates hold NaN; take them from planner\.rates$"):
        choose([torch.full((1, 1), math.nan)], ones, 1.0)
    with pytest.raises(ValueError, match="costs hold NaN, infinity or a negative number"):
        rates(ones, [-ones[0]])


def test_maps_that_do_not_belong_together_are_refused() -> None:
    one, two, four = torch.ones(1, 1), torch.ones(2, 2), torch.ones(4, 4)
    with pytest.raises(
        ValueError,
        match=r"^maps are \[1, 1\] and then \[4, 4\]; .* with half the sides of the next, rounded up$",
    ):
        rates([one, four], [one, four])
    with pytest.raises(ValueError, match=r"maps are \[2, 2\] and then \[1, 1\]"):
        choose([two, one], [two, one], 1.0)
    with pytest.raises(
        ValueError, match=r"gains are \[\[1, 1\]\] and costs \[\[1, 1\], \[2, 2\]\]; give one"
    ):
        rates([one], [one, two])
    with pytest.raises(ValueError, match=r"rates are \[\[2, 2\]\] and costs \[\[1, 1\]\]"):
        choose([two], [one], 1.0)
    with pytest.raises(ValueError, match=r"maps are \[\[3\]\]; give \[rows, columns\] for every level"):
        rates([torch.ones(3)], [torch.ones(3)])
    with pytest.raises(ValueError, match="rates are for 1 images and costs for 2; give both for each"):
        choose_shared([[one]], [[one], [one]], 1.0)


def test_inputs_stay_as_they_were() -> None:
    case = Case(Random(3), shapes_of(3, 5, 2))
    before = flat(case.gains).clone(), flat(case.costs).clone()
    found = rates([g.double() for g in case.gains], [c.double() for c in case.costs])
    kept = flat(found).clone()
    choose(found, case.costs, 3.0)
    assert torch.equal(flat(found), kept)
    assert torch.equal(flat(case.gains), before[0])
    assert torch.equal(flat(case.costs), before[1])


def test_ten_thousand_cells_are_planned_within_a_second() -> None:
    shapes = shapes_of(100, 100, 4)
    gains, costs = [torch.rand(s) for s in shapes], [torch.ones(s) for s in shapes]
    start = time.perf_counter()
    masks = choose(rates(gains, costs), costs, 4000.0)
    assert time.perf_counter() - start < 1
    assert int(flat(masks).sum()) == 4000
