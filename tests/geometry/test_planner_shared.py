"""A budget that several images share."""

from __future__ import annotations

from random import Random

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from forests import Case, cases, flat, within
from foveal.geometry.planner import choose, choose_above, choose_shared, rates
from strategies import sources


@settings(max_examples=60)
@given(source=sources())
def test_a_shared_budget_goes_where_it_gains_most(source: Random) -> None:
    images = [Case(source) for _ in range(source.randint(1, 4))]
    found, costs = [c.rates for c in images], [c.costs for c in images]
    for rate in sorted({r for c in images for r in c.corners}, reverse=True):
        corner = [choose_above(r, rate) for r in found]
        budget = sum(c.cost(m) for c, m in zip(images, corner, strict=True))
        masks = choose_shared(found, costs, budget)
        assert all(torch.equal(flat(a), flat(b)) for a, b in zip(masks, corner, strict=True))


@settings(max_examples=60)
@given(source=sources(), fill=st.booleans())
def test_shared_choices_keep_the_budget_are_closed_and_nested(source: Random, fill: bool) -> None:
    images = [Case(source) for _ in range(source.randint(1, 4))]
    found, costs = [c.rates for c in images], [c.costs for c in images]
    last = choose_shared(found, costs, -1.0, fill)
    assert not any(bool(flat(m).any()) for m in last)
    for budget in sorted(source.uniform(0, 40) for _ in range(8)):
        masks = choose_shared(found, costs, budget, fill)
        assert sum(c.cost(m) for c, m in zip(images, masks, strict=True)) <= budget
        assert all(c.is_closed(m) for c, m in zip(images, masks, strict=True))
        assert all(within(a, b) for a, b in zip(last, masks, strict=True))
        last = masks


@given(case=cases(), budget=st.floats(0, 30), fill=st.booleans())
def test_one_image_shares_with_nobody(case: Case, budget: float, fill: bool) -> None:
    (masks,) = choose_shared([case.rates], [case.costs], budget, fill)
    assert torch.equal(flat(masks), flat(choose(case.rates, case.costs, budget, fill)))


def test_a_hard_image_gets_more_of_a_shared_budget() -> None:
    easy, hard = [torch.ones(2, 2)], [torch.full((2, 3), 5.0)]
    costs = [torch.ones(2, 2)], [torch.ones(2, 3)]
    found = [rates(easy, costs[0]), rates(hard, costs[1])]
    for budget, expected in ((4.0, [0, 4]), (7.0, [1, 6]), (99.0, [4, 6])):
        assert [int(flat(m).sum()) for m in choose_shared(found, costs, budget)] == expected


def test_equal_rates_of_several_images_go_coarser_first_then_by_image() -> None:
    ones = [torch.ones(1, 1), torch.ones(2, 2)]
    found = rates(ones, ones)
    for budget, counts in ((1, [1, 0]), (2, [1, 1]), (4, [3, 1]), (7, [5, 2]), (10, [5, 5])):
        parts = choose_shared([found, found], [ones, ones], budget)
        assert [flat(p).tolist() for p in parts] == [[n < count for n in range(5)] for count in counts]
