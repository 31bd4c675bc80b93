from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from foveal.geometry.layout import Layout
from foveal.geometry.plan import SKIP, Plan
from foveal.ops import compose_tiles, cut_tiles
from strategies import layouts, plans, random_tiles, sides

EXACT = [name for name in compose_tiles.names if name != "native"]  # tests/ops/test_native.py
FAST = [name for name in EXACT if name != "reference"]


def all_tiles(layout: Layout, side: int) -> torch.Tensor:
    return random_tiles(layout.everything, side)[0]


@pytest.mark.parametrize("backend", FAST)
@settings(max_examples=200)
@given(data=st.data())
def test_values_and_gradients_are_those_of_the_reference(backend: str, data: st.DataObject) -> None:
    layout = data.draw(layouts())
    base = data.draw(st.integers(0, min(layout.levels, default=0)))
    tiles = all_tiles(layout, data.draw(sides(layout.tile)))
    expected = compose_tiles(tiles, layout, base, backend="reference")
    found = compose_tiles(tiles, layout, base, backend=backend)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    if expected.requires_grad:
        weight = torch.randn_like(expected)
        slopes = [torch.autograd.grad(y, tiles, weight) for y in (found, expected)]
        torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", EXACT)
@given(data=st.data())
def test_composing_undoes_cutting_at_every_level(backend: str, data: st.DataObject) -> None:
    plan, level = data.draw(plans(max_level=0)), data.draw(st.integers(0, 3))
    layout = Plan.uniform(len(plan.levels), plan.size, plan.tile, level).layout
    side = data.draw(sides(plan.tile))
    x = torch.randn(len(plan.levels), 2, *layout.extent(side, level))
    tiles = cut_tiles(x, layout, side, level)
    assert torch.equal(compose_tiles(tiles, layout, level, backend=backend), x)


@pytest.mark.parametrize("backend", EXACT)
@given(data=st.data())
def test_coarse_tiles_are_upsampled_as_the_whole_map_would_be(backend: str, data: st.DataObject) -> None:
    plan, level = data.draw(plans(max_level=0)), data.draw(st.integers(1, 2))
    layout = Plan.uniform(len(plan.levels), plan.size, plan.tile, level).layout
    side = data.draw(sides(plan.tile))
    x = torch.randn(len(plan.levels), 2, *layout.extent(side, level), dtype=torch.float64)
    large = F.interpolate(x, scale_factor=2**level, mode="bilinear", align_corners=False)
    height, width = layout.extent(side, 0)
    found = compose_tiles(cut_tiles(x, layout, side, level), layout, backend=backend)
    torch.testing.assert_close(found, large[:, :, :height, :width], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", EXACT)
@given(plan=plans(), data=st.data())
def test_a_constant_has_no_seams(backend: str, plan: Plan, data: st.DataObject) -> None:
    side = data.draw(sides(plan.tile))
    tiles = torch.full((len(plan.layout), 1, side, side), 3.0)
    found = compose_tiles(tiles, plan.layout, backend=backend)
    torch.testing.assert_close(found, torch.full_like(found, 3.0))
    assert found.shape == (len(plan.levels), 1, *plan.layout.extent(side, 0))


@pytest.mark.parametrize("backend", EXACT)
def test_fine_tiles_are_written_as_they_are_beside_coarse_ones(backend: str) -> None:
    levels = torch.tensor([[[1, 1, 0, SKIP], [1, 1, SKIP, 0]]])
    tiles = torch.randn(3, 1, 4, 4)
    found = compose_tiles(tiles, Plan(levels, 4, (8, 15)).layout, backend=backend)[0]
    assert torch.equal(found[:, :4, 8:12], tiles[1])
    assert torch.equal(found[:, 4:, 12:], tiles[2][:, :, :3])
    assert found[:, :4, 12:].abs().sum() + found[:, 4:, 8:12].abs().sum() == 0


@pytest.mark.parametrize("backend", EXACT)
def test_no_tile_at_all_gives_zeros(backend: str) -> None:
    layout = Plan.uniform(2, (5, 9), 4, SKIP).layout
    found = compose_tiles(torch.zeros(0, 3, 2, 2), layout, backend=backend)
    assert torch.equal(found, torch.zeros(2, 3, 3, 5))


@pytest.mark.parametrize("backend", EXACT)
def test_gradcheck_with_three_levels(backend: str) -> None:
    levels = torch.tensor([[[2, 2, 2, 2, 1, 1], [2, 2, 2, 2, 1, 1], [2, 2, 2, 2, 0, SKIP]]])
    layout = Plan(levels, 2, (5, 12)).layout
    tiles = torch.randn(len(layout), 1, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: compose_tiles(x, layout, backend=backend), tiles)


@pytest.mark.parametrize("backend", FAST)
@given(layout=layouts((8,)))
def test_single_precision_is_as_exact_as_the_reference(backend: str, layout: Layout) -> None:
    tiles = all_tiles(layout, 4).detach()
    exact = compose_tiles(tiles, layout, backend="reference")
    unavoidable = (compose_tiles(tiles.float(), layout, backend="reference") - exact).abs().max().item()
    found = compose_tiles(tiles.float(), layout, backend=backend).double()
    torch.testing.assert_close(found, exact, rtol=0, atol=2 * unavoidable + 1e-7)


@pytest.mark.parametrize("backend", EXACT)
def test_tiles_are_left_as_they_were(backend: str) -> None:
    layout = Plan.uniform(1, (7, 9), 4, 1).layout
    tiles = torch.randn(len(layout), 2, 4, 4)
    before = tiles.clone()
    compose_tiles(tiles, layout, backend=backend)
    assert torch.equal(tiles, before)


def test_a_forced_implementation_that_does_not_exist_names_those_there_are() -> None:
    names = ", ".join(compose_tiles.names)
    with pytest.raises(ValueError, match=f"compose_tiles has no backend 'metal'; available: {names}"):
        compose_tiles(torch.zeros(1, 1, 1, 1), Plan.uniform(1, (1, 1), 1).layout, backend="metal")
