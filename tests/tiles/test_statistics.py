"""Norms by statistics of an image: every sample counts with the area that it stands for."""

from __future__ import annotations

from random import Random

import pytest
import torch
from hypothesis import given, settings
from torch import nn

from both_laws import assert_both_laws, assert_runs_on_mixed_plans, random_map, shapes
from foveal.geometry.area import areas
from foveal.geometry.plan import SKIP, Plan
from foveal.tiles import NoTileRule, split
from strategies import plans, sources


def shaken(norm: nn.Module) -> nn.Module:
    for value in norm.parameters():
        nn.init.uniform_(value, 0.5, 1.5)
    return norm.double()


NORMS = {
    "groups": lambda: nn.GroupNorm(2, 4),
    "one group": lambda: nn.GroupNorm(1, 4),
    "a group per channel": lambda: nn.GroupNorm(4, 4, affine=False),
    "instance": lambda: nn.InstanceNorm2d(4, affine=True),
    "plain instance": lambda: nn.InstanceNorm2d(4),
}


@torch.no_grad()
@settings(max_examples=25)
@given(source=sources())
@pytest.mark.parametrize("name", NORMS)
def test_norms_over_the_image(name: str, source: Random) -> None:
    x = random_map((source.randint(8, 30), source.randint(8, 30))) * 3 + 1
    run = nn.Sequential(nn.Conv2d(4, 4, 3, source.choice([1, 2]), 1).double(), shaken(NORMS[name]()))
    assert_both_laws(run, x)
    assert_runs_on_mixed_plans(run, random_map(shapes(source)), source)


@given(plan=plans((8,), max_level=2))
def test_what_is_normalised_has_mean_0_and_variance_1_over_the_image(plan: Plan) -> None:
    x = split(torch.randn(len(plan.levels), 4, *plan.size, dtype=torch.float64) * 3 + 2, plan)
    out = nn.GroupNorm(2, 4, eps=1e-12).double()(x).tiles.unflatten(1, (2, 2))
    area = areas(plan.layout, 8).double()[:, None, None]
    for n in range(len(plan.levels)):
        here = plan.layout.image == n
        weight = area[here].expand_as(out[here])
        mean, square = (
            (out[here] ** k * weight).sum((0, 2, 3, 4)) / weight.sum((0, 2, 3, 4)) for k in (1, 2)
        )
        torch.testing.assert_close(mean, torch.zeros(2).double(), rtol=0, atol=1e-9)
        assert square.max() < 1 + 1e-9


def test_statistics_of_a_second_pass_count_what_the_first_one_left() -> None:
    size, norm = (16, 16), nn.GroupNorm(1, 2).double()
    x = random_map(size, 1, 2)
    first = norm(split(x, Plan.uniform(1, size, 8), remember=True))
    first.dense()
    again = norm(split(x, Plan(torch.tensor([[[0, SKIP], [SKIP, SKIP]]]), 8, size), first.memory()))
    torch.testing.assert_close(again.tiles, first.tiles[:1])


def test_instance_norm_by_running_statistics_is_per_sample() -> None:
    norm = nn.InstanceNorm2d(4, affine=True, track_running_stats=True).double().eval()
    nn.init.uniform_(norm.running_mean)
    assert_both_laws(norm, random_map((13, 21)))
    with pytest.raises(NoTileRule, match="in training that keeps running statistics"):
        norm.train()(split(random_map((13, 21)), Plan.uniform(2, (13, 21), 8)))


def test_gradients_reach_a_group_norm() -> None:
    norm, x = nn.GroupNorm(2, 4).double(), random_map((13, 21))
    found, expected = (
        torch.autograd.grad((y * y * y).sum(), norm.weight)[0]
        for y in (norm(split(x, Plan.uniform(2, (13, 21), 8))).dense(), norm(x))
    )
    torch.testing.assert_close(found, expected)
