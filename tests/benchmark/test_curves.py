from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.benchmark.curves import compare, time_at
from foveal.calibration.curves import Point, pareto, quality_at

points = st.lists(st.builds(Point, st.floats(0.1, 1000), st.floats(0, 1)), min_size=1, max_size=12)
CURVE = [Point(10, 0.5), Point(100, 0.7)]


@given(points)
def test_no_point_of_a_curve_is_beaten(given_points: list[Point]) -> None:
    kept = pareto(given_points)
    for point in kept:
        assert not [p for p in given_points if p.cost <= point.cost and p.quality > point.quality]
        assert not [p for p in given_points if p.cost < point.cost and p.quality >= point.quality]
    for point in given_points:
        assert any(p.cost <= point.cost and p.quality >= point.quality for p in kept)


def test_between_points_quality_goes_with_the_logarithm_of_time() -> None:
    assert quality_at(CURVE, 10**1.5) == pytest.approx(0.6)
    assert time_at(CURVE, 0.6) == pytest.approx(10**1.5)
    assert (time_at(CURVE, 0.3), time_at(CURVE, 0.7), time_at(CURVE, 0.71)) == (10, pytest.approx(100), None)
    assert (quality_at(CURVE, 9), quality_at(CURVE, 10), quality_at(CURVE, 1000)) == (None, 0.5, 0.7)


@given(points)
def test_a_curve_equals_itself(given_points: list[Point]) -> None:
    found = compare(pareto(given_points), pareto(given_points))
    assert found.speedup is not None and found.gain is not None
    assert found.speedup.mean == pytest.approx(1)
    assert found.gain.mean == pytest.approx(0, abs=1e-9)


def test_a_faster_curve_has_its_speedup() -> None:
    twice = [Point(ms / 2, quality) for ms, quality in CURVE]
    ahead, behind = compare(twice, CURVE), compare(CURVE, twice)
    assert ahead.speedup is not None and behind.speedup is not None
    assert (ahead.speedup.least, ahead.speedup.mean, ahead.speedup.most) == pytest.approx((2, 2, 2))
    assert behind.speedup.mean == pytest.approx(0.5)
    assert ahead.gain is not None and behind.gain is not None
    assert 0 < ahead.gain.mean == pytest.approx(-behind.gain.mean)


def test_a_better_curve_has_its_gain() -> None:
    better = [Point(ms, quality + 0.02) for ms, quality in CURVE]
    found = compare(better, CURVE)
    assert found.gain is not None
    assert (found.gain.low, found.gain.high) == pytest.approx((10, 100))
    assert (found.gain.least, found.gain.mean, found.gain.most) == pytest.approx((0.02, 0.02, 0.02))


def test_curves_that_share_no_quality_are_not_compared_in_time() -> None:
    found = compare([Point(5, 0.1), Point(6, 0.2)], CURVE)
    assert found.speedup is None
    assert found.gain is not None and found.gain.most == pytest.approx(-0.3)
    assert compare([], CURVE).gain is None
