from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.geometry.layout import Layout
from foveal.geometry.plan import SKIP, Plan
from foveal.ops import cut_tiles, halve
from strategies import layouts, plans, sides, sizes

EXACT = [name for name in cut_tiles.names if name != "native"]  # tests/ops/test_native.py
FAST = [name for name in EXACT if name != "reference"]


def dense_map(layout: Layout, side: int, base: int = 0) -> torch.Tensor:
    extent = layout.extent(side, base)
    return torch.randn(layout.images, 2, *extent, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("backend", FAST)
@settings(max_examples=200)
@given(data=st.data())
def test_values_and_gradients_are_those_of_the_reference(backend: str, data: st.DataObject) -> None:
    layout = data.draw(layouts())
    side = data.draw(sides(layout.tile))
    base = data.draw(st.integers(0, min(layout.levels, default=0)))
    x = dense_map(layout, side, base)
    expected = cut_tiles(x, layout, side, base, backend="reference")
    found = cut_tiles(x, layout, side, base, backend=backend)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    if expected.requires_grad:
        weight = torch.randn_like(expected)
        slopes = [torch.autograd.grad(y, x, weight) for y in (found, expected)]
        torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", EXACT)
@given(plan=plans(), data=st.data())
def test_a_tile_is_a_window_of_the_map_reduced_by_its_level(
    backend: str, plan: Plan, data: st.DataObject
) -> None:
    layout, side = plan.layout, data.draw(sides(plan.tile))
    maps = [dense_map(layout, side).detach()]
    for _ in range(3):
        maps.append(halve(maps[-1]))
    tiles = cut_tiles(maps[0], layout, side, backend=backend)
    for tile, n, level, row, column in zip(
        tiles, layout.image, layout.level, layout.row, layout.column, strict=True
    ):
        top, left = int(row * side >> level), int(column * side >> level)
        expected = maps[level][n, :, top : top + side, left : left + side]
        height, width = expected.shape[1:]
        torch.testing.assert_close(tile[:, :height, :width], expected, rtol=1e-13, atol=1e-13)
        assert tile[:, height:].abs().sum() + tile[:, :, width:].abs().sum() == 0


@pytest.mark.parametrize("backend", EXACT)
def test_a_coarse_sample_at_a_ragged_edge_is_the_mean_of_the_samples_that_exist(backend: str) -> None:
    x = torch.arange(9.0).view(1, 1, 3, 3)
    tile = cut_tiles(x, Plan.uniform(1, (3, 3), 2, 1).layout, 2, backend=backend)
    assert tile[0, 0].tolist() == [[2, 3.5], [6.5, 8]]


@pytest.mark.parametrize("backend", EXACT)
def test_no_tile_at_all_gives_no_tile(backend: str) -> None:
    layout = Plan.uniform(2, (5, 9), 4, SKIP).layout
    assert cut_tiles(torch.zeros(2, 3, 5, 9), layout, 4, backend=backend).shape == (0, 3, 4, 4)


@pytest.mark.parametrize("backend", EXACT)
def test_gradcheck_with_three_levels(backend: str) -> None:
    levels = torch.tensor([[[2, 2, 2, 2, 1, 1], [2, 2, 2, 2, 1, 1], [2, 2, 2, 2, 0, SKIP]]])
    layout = Plan(levels, 1, (3, 6)).layout
    assert torch.autograd.gradcheck(
        lambda x: cut_tiles(x, layout, 1, backend=backend),
        dense_map(layout, 1)[:, :1].detach().requires_grad_(),
    )


@pytest.mark.parametrize("backend", FAST)
@given(layout=layouts((8,)))
def test_single_precision_is_as_exact_as_the_reference(backend: str, layout: Layout) -> None:
    x = dense_map(layout, 8).detach()
    exact = cut_tiles(x, layout, 8, backend="reference")
    single = cut_tiles(x.float(), layout, 8, backend="reference")
    unavoidable = (single - exact).abs().max().item() if len(exact) else 0
    found = cut_tiles(x.float(), layout, 8, backend=backend).double()
    torch.testing.assert_close(found, exact, rtol=0, atol=2 * unavoidable + 1e-7)


@pytest.mark.parametrize("backend", EXACT)
def test_a_map_is_left_as_it_was(backend: str) -> None:
    x = torch.randn(1, 2, 7, 9)
    before = x.clone()
    cut_tiles(x, Plan.uniform(1, (7, 9), 4, 1).layout, 4, backend=backend)
    assert torch.equal(x, before)


def test_a_forced_implementation_that_does_not_exist_names_those_there_are() -> None:
    names = ", ".join(cut_tiles.names)
    with pytest.raises(ValueError, match=f"cut_tiles has no backend 'metal'; available: {names}"):
        cut_tiles(torch.zeros(1, 1, 1, 1), Plan.uniform(1, (1, 1), 1).layout, 1, backend="metal")


@given(size=sizes(tile=9))
def test_halving_averages_the_samples_that_exist(size: tuple[int, int]) -> None:
    x = torch.randn(2, 1, *size, dtype=torch.float64)
    half = halve(x)
    assert half.shape[2:] == tuple(-(-side // 2) for side in size)
    for row in (0, half.shape[2] - 1):
        for column in (0, half.shape[3] - 1):
            window = x[:, 0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            torch.testing.assert_close(half[:, 0, row, column], window.mean((1, 2)))
