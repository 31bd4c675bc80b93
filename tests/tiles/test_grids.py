"""Grids spread over maps again, in batches whose images have different finest levels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from families import FAMILIES
from foreign import lively, picture
from foveal.fusion import fuse
from foveal.geometry.plan import Plan
from foveal.tiles import TileTensor, split
from foveal.tiles.grid import Grid

SIZE, TILE = (144, 208), 16


def mixed_plan() -> Plan:
    """One image with all levels up to 2, one of level 1 and coarser, one of level 2 alone."""
    levels = torch.ones(3, 9, 13, dtype=torch.int8)
    levels[0, :4, :4], levels[0, 4:8, :4] = 0, 2
    levels[1, :4, 4:8], levels[2] = 2, 2
    return Plan(levels, TILE, SIZE)


@torch.no_grad()
@pytest.mark.parametrize("family", ["psp", "psp_half_pixel", "aspp"])
@pytest.mark.parametrize("joined", [False, True])
def test_images_are_as_alone(family: str, joined: bool) -> None:
    network = lively(FAMILIES[family][0]())
    network = fuse(network) if joined else network
    x, plan = picture(size=SIZE, count=3), mixed_plan()

    def answer(tiles: TileTensor) -> Tensor:
        found = network(tiles)
        return (found["out"] if isinstance(found, dict) else found).dense()

    together = answer(split(x, plan))
    for n in range(3):
        alone = answer(split(x[n : n + 1], Plan(plan.levels[n : n + 1], TILE, SIZE)))
        assert (together[n : n + 1] - alone).abs().max() < 1e-5 * alone.abs().max()


@torch.no_grad()
def test_a_grid_is_a_plain_tensor_beside_tiles() -> None:
    tiles = split(picture(size=SIZE, count=3), mixed_plan())
    grid = F.adaptive_avg_pool2d(tiles, 1)
    assert isinstance(grid, Grid) and isinstance(nn.Conv2d(3, 3, 1)(grid).relu(), Grid)
    for product in (tiles * grid, grid * tiles):
        assert isinstance(product, TileTensor) and type(product.tiles) is Tensor
    assert type(F.adaptive_avg_pool2d(split(picture(size=SIZE), Plan.uniform(1, SIZE, TILE, 1)), 1)) is Tensor


@torch.no_grad()
def test_a_grid_spread_to_numbers_stays_a_grid() -> None:
    tiles = split(picture(size=SIZE, count=3), mixed_plan())
    spread = F.interpolate(F.adaptive_avg_pool2d(tiles, 2), (6, 5), mode="bilinear")
    assert isinstance(spread, Grid) and tuple(spread.shape) == (3, 3, 6, 5)
