"""What follows from a layout: built once, shared, and built anew for another layout of the same shape."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from foveal.geometry.area import areas
from foveal.geometry.halo_table import halo_table
from foveal.geometry.layout import Halo, Layout
from foveal.geometry.level_tiles import level_tiles
from foveal.geometry.plan import SKIP, Plan
from foveal.geometry.squares import group_squares, sum_squares
from strategies import layouts, plans, sides


def mixed() -> Plan:
    return Plan(torch.tensor([[[1, 1, 0], [1, 1, 0]]]), 4, (7, 11))


def test_a_table_is_built_once() -> None:
    layout, built = mixed().layout, []

    def build(layout: Layout) -> int:
        built.append(layout)
        return len(layout)

    assert [layout.table("count", build) for _ in range(3)] == [3, 3, 3]
    assert len(built) == 1 and built[0] is layout


def test_all_tables_are_built_for_a_layout_that_comes_next() -> None:
    first, second = mixed().layout, mixed().layout
    expected = halo_table(first, 2, Halo.around(1)), areas(first, 2), level_tiles(first, 1)
    second.rebuild_tables(first)

    def never(layout: Layout) -> None:
        pytest.fail("it was built already")

    for key, value in (
        (("halo", 2, Halo.around(1)), expected[0]),
        (("level tiles", 1, "cpu"), expected[2]),
    ):
        for found, wanted in zip(second.table(key, never), value, strict=True):
            assert torch.equal(found, wanted) and found is not wanted
    assert torch.equal(second.table(("area", 2), never), expected[1])


def test_layouts_made_from_a_layout_start_without_its_tables_and_are_shared() -> None:
    layout = mixed().layout
    layout.table("count", len)
    other = layout.with_borders("zero")
    assert other.table("count", lambda layout: -1) == -1 and layout.table("count", len) == 3
    assert layout.of_images([0])[0] is layout
    both = Plan(torch.zeros(2, 2, 3, dtype=torch.int8), 4, (7, 11)).layout
    assert both.of_images([1])[0] is both.of_images([1])[0]


@given(plan=plans())
def test_every_computed_tile_is_in_the_list_of_its_level(plan: Plan) -> None:
    layout, seen = plan.layout, torch.zeros(len(plan.layout))
    for level in layout.levels:
        found = level_tiles(layout, level)
        seen[found.number] += 1
        assert (layout.level[found.number] == level).all()
        assert torch.equal(found.row << level, layout.row[found.number])
        assert torch.equal(found.column << level, layout.column[found.number])
        assert torch.equal(found.image, layout.image[found.number])
    assert (seen == 1).all()


@given(layout=layouts(), data=st.data())
def test_areas_of_the_samples_are_those_of_the_image_that_is_known(
    layout: Layout, data: st.DataObject
) -> None:
    side = data.draw(sides(layout.tile))
    area = areas(layout, side)
    assert area.shape == (len(layout), side, side) and (area >= 0).all()
    assert (area.flatten(1).sum(1) <= 4.0**layout.level * side**2).all()


def test_areas_of_a_plan_without_edges_add_up() -> None:
    plan = Plan(torch.tensor([[[1, 1, 0, 0], [1, 1, SKIP, 0]]]), 8, (16, 32))
    assert areas(plan.layout, 4).flatten(1).sum(1).tolist() == [64, 16, 16, 16]


@pytest.mark.parametrize("side", [1, 2, 4])
def test_squares_of_a_ragged_grid(side: int) -> None:
    x = torch.arange(15.0).view(3, 5)

    def square(row: int, column: int) -> Tensor:
        return x[row * side : (row + 1) * side, column * side : (column + 1) * side]

    sums, groups = sum_squares(x, side), group_squares(x[None] > 7, side)[0]
    assert sums.shape == groups.shape[:2] == (-(-3 // side), -(-5 // side)) and groups.shape[2] == side**2
    for row in range(sums.shape[0]):
        for column in range(sums.shape[1]):
            assert float(sums[row, column]) == float(square(row, column).sum())
            inside = square(row, column) > 7
            outside = side**2 - inside.numel()
            expected = int(inside.sum()) + outside * bool(inside.any())
            assert int(groups[row, column].sum()) == expected
