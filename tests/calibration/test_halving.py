"""Successive halving: rungs, hulls, and who goes on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.calibration.curves import Point, hull, pareto, quality_at
from foveal.calibration.halving import image_order, rungs, shortfalls, survivors

numbers = st.lists(
    st.tuples(st.floats(0.01, 1), st.floats(0, 1)), min_size=1, max_size=20, unique_by=lambda p: p[0]
)


@pytest.mark.parametrize(
    ("images", "first", "expected"),
    [(24, 3, [3, 6, 12, 24]), (27, 3, [3, 6, 12, 27]), (2, 3, [2]), (4, 3, [4]), (5, 3, [3, 5]), (1, 1, [1])],
)
def test_rungs_double_up_to_all_images(images: int, first: int, expected: list[int]) -> None:
    assert rungs(images, first) == expected


def test_the_order_of_images_follows_from_the_seed() -> None:
    assert sorted(image_order(9, 1)) == list(range(9))
    assert image_order(9, 1) == image_order(9, 1) != image_order(9, 2)


@given(numbers)
def test_no_point_lies_above_the_hull_and_its_corners_are_points(pairs: list[tuple[float, float]]) -> None:
    points = [Point(*pair) for pair in pairs]
    corners = hull(points)
    assert set(corners) <= set(pareto(points))
    assert corners[0] == pareto(points)[0] and corners[-1] == pareto(points)[-1]
    for point in points:
        best = quality_at(corners, point.cost)
        assert best is not None and best >= point.quality - 1e-9
    below = shortfalls([p.cost for p in points], [p.quality for p in points])
    assert min(below) == 0 and all(gap >= 0 for gap in below)
    assert all(below[points.index(corner)] == 0 for corner in corners)


def test_who_is_near_a_hull_of_either_cost_goes_on() -> None:
    qualities = [0.5, 0.52, 0.7, 0.55, 0.4, 0.58]
    work = [0.1, 0.2, 0.4, 0.4, 0.4, 0.4]
    assert survivors([work], qualities, [False] * 6) == [0, 1, 2]
    # The last is the fastest of all: the hull over time keeps it.
    ms = [10.0, 20.0, 40.0, 40.0, 40.0, 5.0]
    assert survivors([work, ms], qualities, [False] * 6) == [0, 2, 5]
    assert survivors([work], qualities, [False, False, False, False, True, False]) == [0, 1, 2, 4]


@given(numbers)
def test_half_go_on_and_whoever_is_kept(pairs: list[tuple[float, float]]) -> None:
    costs, qualities = [p[0] for p in pairs], [p[1] for p in pairs]
    kept = [k % 3 == 0 for k in range(len(pairs))]
    chosen = survivors([costs], qualities, kept)
    assert chosen == sorted(set(chosen)) and all(k in chosen for k, always in enumerate(kept) if always)
    others = kept.count(False)
    assert len(chosen) == kept.count(True) + -(-others // 2)
