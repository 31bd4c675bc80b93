"""Runs whose plans cost the same are counted once, and no others share a count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest
import torch

from foveal.cost import Counted, MacsByPlan, plan_key
from foveal.geometry.plan import SKIP, Plan

SIZE, TILE = (32, 32), 8


class Ran(NamedTuple):
    """A pass: its name, the tiles that ran, and its work."""

    name: str
    plan: Plan | None = None
    work: torch.Tensor = torch.ones(2, dtype=torch.float64)


def of(levels: Sequence[Sequence[Sequence[int]]]) -> Plan:
    return Plan(torch.tensor(levels, dtype=torch.int8), TILE, SIZE)


def fine_at(*cells: tuple[int, int]) -> Plan:
    """Only these cells, at full resolution."""
    levels = torch.full((1, 4, 4), SKIP, dtype=torch.int8)
    for row, column in cells:
        levels[0, row, column] = 0
    return Plan(levels, TILE, SIZE)


COARSE = Ran("coarse", Plan.uniform(1, SIZE, TILE, 1))
SQUARE = fine_at((2, 2), (2, 3), (3, 2), (3, 3))
CORNERS = fine_at((0, 0), (0, 3), (3, 0), (3, 3))


def test_a_key_has_the_tiles_that_each_pass_computes_and_those_visible_after_it() -> None:
    assert plan_key([]) == ()
    assert plan_key([Ran("dense")]) == (("dense", (1.0, 1.0)),)
    four = ((0, 1, 4),)  # image, level, tiles
    assert plan_key([COARSE]) == (("coarse", (four, four)),)
    assert plan_key([COARSE, Ran("fine", SQUARE)]) == (
        ("coarse", (four, four)),
        ("fine", (((0, 0, 4),), ((0, 0, 4), (0, 1, 3)))),
    )


def test_whole_images_have_a_key_by_their_work() -> None:
    """An image may leave a network early, or be computed at some positions only."""
    less, more = (plan_key([Ran("network", work=torch.tensor([share]))]) for share in (0.25, 0.5))
    assert less == (("network", (0.25,)),) and less != more


def test_as_many_tiles_elsewhere_leave_more_of_the_coarse_ones_and_have_another_key() -> None:
    together, apart = (plan_key([COARSE, Ran("fine", plan)]) for plan in (SQUARE, CORNERS))
    assert apart[1] == ("fine", (((0, 0, 4),), ((0, 0, 4), (0, 1, 4))))
    assert together[0] == apart[0] and together != apart
    moved = fine_at((0, 0), (0, 1), (1, 0), (1, 1))
    assert plan_key([COARSE, Ran("fine", moved)]) == together


def test_tiles_of_all_passes_before_stay_visible_and_images_are_told_apart() -> None:
    first = Ran("first", of([[[1, 1, SKIP, SKIP]] * 2 + [[SKIP] * 4] * 2, [[2] * 4] * 4]))
    second = Ran(
        "second", of([[[SKIP] * 4] * 2 + [[SKIP, SKIP, 0, 0]] * 2, [[0] + [SKIP] * 3] + [[SKIP] * 4] * 3])
    )
    third = Ran("third", of([[[SKIP] * 4] * 3 + [[SKIP] * 3 + [0]], [[SKIP] * 4] * 4]))
    one = ((0, 1, 1), (1, 2, 1))
    assert plan_key([first, Ran("whole"), second, third]) == (
        ("first", (one, one)),
        ("whole", (1.0, 1.0)),
        ("second", (((0, 0, 4), (1, 0, 1)), ((0, 0, 4), (0, 1, 1), (1, 0, 1), (1, 2, 1)))),
        ("third", (((0, 0, 1),), ((0, 0, 4), (0, 1, 1), (1, 0, 1), (1, 2, 1)))),
    )


def test_whole_images_that_went_through_a_part_of_a_network_are_told_apart_by_their_work() -> None:
    keys = [plan_key([Ran("gates", None, torch.tensor(works))]) for works in ([0.5, 0.2], [0.2, 0.5])]
    assert keys[0] == (("gates", (0.5, pytest.approx(0.2))),) and keys[0] != keys[1]


def test_what_no_pass_computed_is_not_visible() -> None:
    only = ((0, 0, 1),)
    assert plan_key([Ran("first", fine_at((1, 2)))]) == (("first", (only, only)),)
    nothing = Ran("nothing", Plan.uniform(1, SIZE, TILE, SKIP))
    assert plan_key([nothing, Ran("first", fine_at((0, 0)))]) == (
        ("nothing", ((), ())),
        ("first", (only, only)),
    )
    again = Ran("again", fine_at((0, 0)))  # the first tile of all is overtaken by the first one of a pass
    assert plan_key([Ran("first", fine_at((0, 0))), again]) == (
        ("first", (only, only)),
        ("again", (only, only)),
    )


class Method:
    """Multiplies as often as it is told, and says which passes that was."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.next: list[Plan] = []

    def __call__(self) -> list[Ran]:
        plan = self.next.pop(0)
        self.runs.append("counted" if torch.is_grad_enabled() is False else "alone")
        torch.rand(int(plan.tiles.sum()), 3) @ torch.rand(3, 5)
        return [Ran("fine", plan)]


def test_a_run_is_counted_where_none_of_its_shape_and_cost_was() -> None:
    method, macs = Method(), MacsByPlan(lambda passes: passes)
    seven, moved, five = (
        fine_at(*((k // 4, k % 4) for k in range(7))),
        fine_at((0, 0), (3, 3)),
        fine_at((1, 1)),
    )

    def run(shape: Sequence[int], *plans: Plan) -> tuple[Counted[list[Ran]], list[str]]:
        method.next, method.runs = list(plans), []
        return macs.run(method, shape), method.runs

    shape = [1, 3, 32, 32]
    first, runs = run(shape, seven)
    assert (first.macs, first.observed, runs) == (7 * 15, True, ["counted"])
    assert first.value == [Ran("fine", seven)]
    known, runs = run(shape, fine_at(*((3 - k // 4, k % 4) for k in range(7))))
    assert (known.macs, known.observed, runs) == (7 * 15, False, ["alone"])
    assert known.value[0].plan is not seven
    other, runs = run(shape, moved, five)  # what is counted draws another plan than what was seen before
    assert (other.macs, other.observed, runs) == (15, True, ["alone", "counted"])
    assert other.value == [Ran("fine", five)]
    assert run(shape, fine_at((2, 3)))[0].observed is False  # the count belongs to the run that was counted
    assert run(shape, moved, moved)[0].macs == 2 * 15
    larger, runs = run((2, 3, 32, 32), seven)
    assert (larger.observed, runs) == (True, ["counted"])


def test_a_run_that_multiplies_nothing_is_counted_once_too() -> None:
    method, macs = Method(), MacsByPlan(lambda passes: passes)
    method.next = [Plan.uniform(1, SIZE, TILE, SKIP)] * 2
    assert [macs.run(method, (1, 3, 32, 32)).observed for _ in range(2)] == [True, False]
    assert method.runs == ["counted", "alone"]


def test_a_run_that_fails_leaves_no_count() -> None:
    method, macs = Method(), MacsByPlan(lambda passes: passes)
    with pytest.raises(IndexError):
        macs.run(method, (1, 3, 32, 32))
    method.next = [SQUARE]
    assert macs.run(method, (1, 3, 32, 32)).observed
