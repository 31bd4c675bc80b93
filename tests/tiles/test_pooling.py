"""Pooling with every option, over windows and over the grid of a whole image."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.nn import functional as F

from both_laws import assert_both_laws, assert_runs_on_mixed_plans, random_map, shapes
from foveal.geometry.plan import Plan
from foveal.tiles import NoTileRule, TileTensor, split
from strategies import sources


@settings(max_examples=60)
@given(source=sources())
def test_average_pooling_with_every_option(source: Random) -> None:
    kernel, stride = source.choice([(3, 1), (3, 2), (5, 2), (5, 1)])
    pool = nn.AvgPool2d(
        kernel,
        stride,
        kernel // 2,
        ceil_mode=stride == 1 and source.random() < 0.5,
        count_include_pad=source.random() < 0.5,
        divisor_override=source.choice([None, 3]),
    )
    x = random_map(shapes(source))
    assert_both_laws(pool, x)
    assert_runs_on_mixed_plans(pool, x, source)


@settings(max_examples=30)
@given(source=sources())
def test_average_pooling_over_the_edge(source: Random) -> None:
    """Windows of 2 that hang over a ragged edge count what exists, or what is there with padding."""
    pool = nn.AvgPool2d(2, ceil_mode=True, count_include_pad=source.random() < 0.5)
    x = random_map(shapes(source))
    assert_both_laws(pool, x)
    assert_runs_on_mixed_plans(pool, x, source)


@pytest.mark.parametrize("counted", [True, False])
def test_average_pooling_of_explicit_padding(counted: bool) -> None:
    pool = nn.AvgPool2d(2, 1, count_include_pad=counted)
    assert_both_laws(lambda x: pool(F.pad(x, (0, 1, 0, 1))), random_map((13, 21)))


@settings(max_examples=20)
@given(source=sources())
def test_pooling_to_any_grid(source: Random) -> None:
    grid = source.choice([1, 3, 6, (2, 3), (5, 1)])
    kind = source.choice([nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d])
    x = random_map(shapes(source))
    assert_both_laws(kind(grid), x)
    assert_runs_on_mixed_plans(kind(grid), x, source)


def test_pooling_to_a_grid_sees_every_image_at_its_own_finest_level() -> None:
    x, levels = random_map((32, 32), 3), torch.zeros(3, 4, 4, dtype=torch.int8)
    levels[1], levels[2, :2, :2] = 1, 1
    found = F.adaptive_avg_pool2d(split(x, Plan(levels, 8, (32, 32))), 3)
    for n in range(3):
        alone = F.adaptive_avg_pool2d(split(x[n : n + 1], Plan(levels[n : n + 1], 8, (32, 32))), 3)
        torch.testing.assert_close(found[n : n + 1], alone)
    torch.testing.assert_close(found[:1], F.adaptive_avg_pool2d(x[:1], 3))


class Pyramid(nn.Module):
    """Pyramid pooling whose parts are enlarged to the map and joined with it."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(n), nn.Conv2d(4, 2, 1)) for n in (1, 2, 3, 6)
        )
        self.fuse = nn.Conv2d(12, 4, 3, padding=1)

    def forward(self, x: Any) -> Any:
        maps = [
            F.interpolate(level(x), size=x.shape[2:], mode="bilinear", align_corners=True)
            for level in self.levels
        ]
        return self.fuse(torch.cat([x, *maps], 1))


@torch.no_grad()
@settings(max_examples=10)
@given(source=sources())
def test_a_pyramid_of_the_whole_image(source: Random) -> None:
    pyramid = Pyramid().double()
    assert_both_laws(pyramid, random_map(shapes(source)))
    assert_runs_on_mixed_plans(pyramid, random_map(shapes(source), 1), source)


def test_indices_are_refused() -> None:
    with pytest.raises(NoTileRule, match=r"adaptive_max_pool2d( with |_with_)indices"):
        F.adaptive_max_pool2d(split(random_map((16, 16)), Plan.uniform(2, (16, 16), 8)), 2, True)


def smaller(x: Any, step: int) -> tuple[int, int]:
    """Sides of the map that has a sample for every `step` of another, as a network computes them."""
    return -(-x.shape[2] // step), -(-x.shape[3] // step)


@pytest.mark.parametrize("pooled", [F.adaptive_avg_pool2d, F.adaptive_max_pool2d])
@settings(max_examples=20)
@given(source=sources())
def test_pooling_to_the_size_of_a_coarser_map(pooled: Any, source: Random) -> None:
    """It gives that map, every tile its own part, and the sides that are enlarged to afterwards fit."""
    step = source.choice([2, 4])
    x = random_map((4 * step * source.randint(1, 4), 4 * step * source.randint(1, 4)))

    def run(x: Any) -> Any:
        small = pooled(x, smaller(x, step))
        assert not isinstance(x, TileTensor) or isinstance(small, TileTensor)
        return F.interpolate(small, x.shape[2:], mode="bilinear", align_corners=True)

    assert_both_laws(run, x)
    assert_runs_on_mixed_plans(run, x, source)


def test_pooling_back_from_twice_the_size() -> None:
    def run(x: Any) -> Any:
        half = F.avg_pool2d(x, 2)
        twice = F.interpolate(half, [2 * n for n in half.shape[2:]], mode="bilinear", align_corners=True)
        return F.adaptive_avg_pool2d(twice.square(), half.shape[2:])

    x = random_map((32, 40))
    assert_both_laws(run, x, levels=(0, 1, 2))
    assert_runs_on_mixed_plans(run, x, Random(0))


def test_pooling_to_what_is_no_whole_part_of_a_map_is_refused() -> None:
    x = split(random_map((32, 40)), Plan.uniform(2, (32, 40), 8))
    for sides in [(x.shape[2] - 1, x.shape[3] - 1), (x.shape[2] * 2 // 3, x.shape[3] * 2 // 3)]:
        with pytest.raises(NoTileRule, match="no whole part of it"):
            F.adaptive_avg_pool2d(x, sides)
    with pytest.raises(NoTileRule, match="rounded up"):
        ragged = split(random_map((13, 21)), Plan.uniform(2, (13, 21), 8))
        F.adaptive_avg_pool2d(ragged, smaller(ragged, 2))
