"""The growing curve of least squared error."""

from __future__ import annotations

from math import inf, nan

import pytest
import torch

from foveal.calibration.isotonic import IsotonicCurve
from samples import error_of


def best_growing(points: list[tuple[float, float]]) -> list[float]:
    """Least squares growing values, by trying every division of the points into steps."""
    count, best, error = len(points), [], inf
    for cuts in range(2 ** (count - 1)):
        steps, current = [], [points[0][1]]
        for k in range(1, count):
            if cuts >> (k - 1) & 1:
                steps.append(current)
                current = []
            current.append(points[k][1])
        steps.append(current)
        values = [sum(step) / len(step) for step in steps for _ in step]
        wrong = sum((value - y) ** 2 for value, (_, y) in zip(values, points, strict=True))
        if values == sorted(values) and wrong < error - 1e-12:
            best, error = values, wrong
    return best


@pytest.mark.parametrize("seed", range(8))
def test_the_curve_is_the_best_growing_one_at_the_points(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    doubts, losses = torch.rand(2, 9, generator=draw, dtype=torch.float64).tolist()
    points = sorted(zip(doubts, losses, strict=True))
    curve = IsotonicCurve.fit(doubts, losses)
    assert [curve(x) for x, _ in points] == pytest.approx(best_growing(points))


def test_equal_doubts_get_the_mean_of_their_losses() -> None:
    curve = IsotonicCurve.fit([0.2, 0.2, 0.2, 0.5], [0.1, 0.4, 0.1, 0.3])
    assert (curve(0.2), curve(0.5)) == (pytest.approx(0.2), pytest.approx(0.3))


def test_the_curve_is_straight_between_points_level_outside_and_never_falls() -> None:
    curve = IsotonicCurve.fit([0, 1, 2], [0, 0.2, 0.3])
    assert [curve(x) for x in (-1, 0.25, 1.5, 7)] == pytest.approx([0, 0.05, 0.25, 0.3])
    doubts = torch.rand(200)
    noisy = IsotonicCurve.fit(doubts.tolist(), (doubts + torch.randn(200)).tolist())
    values = [noisy(x / 100) for x in range(101)]
    assert values == sorted(values)
    assert len(noisy.gains) < 100


@pytest.mark.parametrize("pairs", [([], []), ([0.1, nan], [0.1, 0.2]), ([0.1], [inf])])
def test_a_curve_needs_finite_points(pairs: tuple[list[float], list[float]]) -> None:
    assert "give at least one, and only finite numbers" in error_of(lambda: IsotonicCurve.fit(*pairs))
