"""A map moves to the tiles of another plan."""

from __future__ import annotations

from random import Random

import pytest
import torch
from hypothesis import given, settings

from foveal.geometry.plan import SKIP, Plan
from foveal.tiles import NoTileRule, retile, split
from strategies import random_plan, sources
from tile_runs import TILE, a_plan, everything, network_and_image, some_skipped


@settings(max_examples=30)
@given(source=sources())
def test_coarser_tiles_of_a_fine_map_are_those_that_are_cut(source: Random) -> None:
    _, image = network_and_image(source)
    plan = a_plan(source, image, skip=source.choice([0.0, 0.4]))
    moved = retile(split(image, everything(image)), plan.layout)
    torch.testing.assert_close(moved.tiles, split(image, plan).tiles, rtol=1e-12, atol=1e-12)
    assert moved.layout is plan.layout


@settings(max_examples=30)
@given(source=sources())
def test_tiles_that_both_plans_have_stay_as_they_are(source: Random) -> None:
    _, image = network_and_image(source)
    before = a_plan(source, image)
    after = some_skipped(source, before, 0.5)
    moved = retile(split(image, before), after.layout)
    kept = [
        index
        for index, place in enumerate(zip(*_places(before), strict=True))
        if place in set(zip(*_places(after), strict=True))
    ]
    assert torch.equal(moved.tiles, split(image, before).tiles[kept])


def test_gradients_reach_what_moved() -> None:
    image = torch.rand(1, 3, 4 * TILE, 4 * TILE, dtype=torch.float64, requires_grad=True)
    plan = random_plan(Random(1), 1, (4 * TILE, 4 * TILE), TILE, 2)
    retile(split(image, everything(image)), plan.layout).tiles.sum().backward()
    assert image.grad is not None and bool((image.grad > 0).all())


def test_plans_of_other_images_are_refused() -> None:
    tiles = split(torch.rand(1, 3, 64, 64), Plan.uniform(1, (64, 64), 32))
    for other in (
        Plan.uniform(2, (64, 64), 32), Plan.uniform(1, (64, 96), 32), Plan.uniform(1, (64, 64), 16),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="the plan is for"):
            retile(tiles, other.layout)
    with pytest.raises(NoTileRule):
        retile(torch.nn.functional.pad(tiles, (1, 1, 1, 1)), Plan.uniform(1, (64, 64), 32).layout)


def test_everything_may_be_left_out() -> None:
    tiles = split(torch.rand(1, 3, 64, 64), Plan.uniform(1, (64, 64), 32))
    nothing = Plan(torch.full((1, 2, 2), SKIP), 32, (64, 64))
    assert len(retile(tiles, nothing.layout).tiles) == 0


def _places(plan: Plan) -> list[list[int]]:
    layout = plan.layout
    return [x.tolist() for x in (layout.image, layout.level, layout.row, layout.column)]
