from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from foveal.geometry.layout import Halo, Layout
from foveal.geometry.plan import SKIP, Plan
from foveal.ops import cut_tiles, fetch_halo, halve
from samples import assert_same
from strategies import halos, layouts, plans, random_tiles, sides

EXACT = [name for name in fetch_halo.names if name != "native"]  # tests/ops/test_native.py
FAST = [name for name in EXACT if name != "reference"]
FILLS = ["zero", "lowest", "edge"]


def layout_of(levels: list[list[int]], tile: int = 2, size: tuple[int, int] | None = None) -> Layout:
    size = size or (len(levels) * tile, len(levels[0]) * tile)
    return Plan(torch.tensor([levels]), tile, size).layout


@pytest.mark.parametrize("backend", FAST)
@settings(max_examples=200)
@given(data=st.data())
def test_values_and_gradients_are_those_of_the_reference(backend: str, data: st.DataObject) -> None:
    layout = data.draw(layouts())
    side, halo = data.draw(sides(layout.tile)), data.draw(halos())
    tiles, kept = random_tiles(layout, side)
    expected = fetch_halo(tiles, layout, halo, kept, backend="reference")
    found = fetch_halo(tiles, layout, halo, kept, backend=backend)
    assert_same(found, expected, [x for x in (tiles, kept) if x is not None])


@pytest.mark.parametrize("backend", EXACT)
@given(data=st.data())
def test_uniform_tiles_see_windows_of_the_padded_dense_map(backend: str, data: st.DataObject) -> None:
    plan, halo = data.draw(plans((4, 6), max_level=0, cells=3)), data.draw(halos(widest=9))
    level = data.draw(st.integers(0, 1))
    plan = Plan.uniform(len(plan.levels), plan.size, plan.tile, level)
    side = data.draw(sides(plan.tile))
    dense = torch.randn(len(plan.levels), 2, *plan.layout.extent(side, level), dtype=torch.float64)
    tiles = cut_tiles(dense, plan.layout, side, level)
    found = fetch_halo(tiles, plan.layout, halo, backend=backend)
    torch.testing.assert_close(found, windows(dense, plan.layout, side, level, halo), rtol=0, atol=0)


def windows(dense: Tensor, layout: Layout, side: int, level: int, halo: Halo) -> Tensor:
    height, width = dense.shape[2:]
    over = (halo.left, halo.right + side - 1, halo.top, halo.bottom + side - 1)
    if halo.fill == "edge":
        padded = F.pad(dense, over, mode="replicate")
    else:
        padded = F.pad(dense, over, value=0.0 if halo.fill == "zero" else torch.finfo(dense.dtype).min)
    out = []
    for n, row, column in zip(layout.image, layout.row >> level, layout.column >> level, strict=True):
        top, left = int(row) * side, int(column) * side
        bottom, right = top + halo.top + side + halo.bottom, left + halo.left + side + halo.right
        assert top < height and left < width
        out.append(padded[n, :, top:bottom, left:right])
    return torch.stack(out)


@pytest.mark.parametrize("backend", EXACT)
def test_fine_tile_sees_the_nearest_sample_of_a_coarser_one(backend: str) -> None:
    layout = layout_of([[1, 1, 0, 0], [1, 1, 0, 0]])
    tiles = torch.tensor([[10, 11, 12, 13], [20, 21, 22, 23], [30] * 4, [40] * 4, [50] * 4]).double()
    bordered = fetch_halo(tiles.view(5, 1, 2, 2), layout, Halo(left=3), backend=backend)
    assert bordered[1, 0].tolist() == [[10, 11, 11, 20, 21], [10, 11, 11, 22, 23]]
    assert bordered[3, 0].tolist() == [[12, 13, 13, 40, 40], [12, 13, 13, 40, 40]]


@pytest.mark.parametrize("backend", EXACT)
def test_coarse_tile_sees_the_mean_of_finer_samples(backend: str) -> None:
    layout = layout_of([[1, 1, 0, 0], [1, 1, 0, 0]])
    tiles = torch.tensor([[10, 11, 12, 13], [20, 22, 24, 30], [0] * 4, [40, 40, 40, 48], [0] * 4]).double()
    bordered = fetch_halo(tiles.view(5, 1, 2, 2), layout, Halo(right=2), backend=backend)
    assert bordered[0, 0].tolist() == [[10, 11, 24, 0], [12, 13, 42, 0]]


@pytest.mark.parametrize("backend", EXACT)
def test_much_coarser_tile_sees_the_mean_of_means_at_a_ragged_edge(backend: str) -> None:
    layout = layout_of([[2, 2, 2, 2, 0]] * 3, tile=1)
    tiles = torch.tensor([5.0, 1.0, 3.0, 7.0]).view(4, 1, 1, 1)
    bordered = fetch_halo(tiles, layout, Halo(right=1), backend=backend)
    assert bordered[0, 0].tolist() == [[5, ((1 + 3) / 2 + 7) / 2]]


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize(("fill", "outside"), [("zero", 0.0), ("lowest", torch.finfo(torch.float64).min)])
def test_unknown_places_are_filled(backend: str, fill: str, outside: float) -> None:
    layout = layout_of([[0, SKIP]], tile=1)
    bordered = fetch_halo(torch.ones(1, 1, 1, 1).double(), layout, Halo(1, 1, fill=fill), backend=backend)
    assert bordered.flatten().tolist() == [outside, 1, outside]


@pytest.mark.parametrize("backend", EXACT)
def test_what_a_tile_holds_outside_the_image_is_never_seen(backend: str) -> None:
    layout = Plan.uniform(1, (3, 3), 4).layout
    tiles = torch.full((1, 1, 4, 4), torch.nan)
    tiles[..., :3, :3] = 1
    for fill, expected in (("zero", 9), ("edge", 36)):
        assert fetch_halo(tiles, layout, Halo.around(1, fill), backend=backend).sum() == expected


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("fill", FILLS)
def test_no_tile_at_all_gives_no_bordered_tile(backend: str, fill: str) -> None:
    layout = Plan.uniform(2, (5, 9), 4, SKIP).layout
    bordered = fetch_halo(torch.zeros(0, 3, 2, 2), layout, Halo(1, 2, 3, 4, fill), backend=backend)
    assert bordered.shape == (0, 3, 9, 5)


@pytest.mark.parametrize("backend", EXACT)
def test_gradcheck_with_kept_tiles_and_three_levels(backend: str) -> None:
    layout = layout_of([[1, 1, 0, SKIP], [1, 1, 0, 0]], size=(3, 7))
    assert torch.autograd.gradcheck(
        lambda x: fetch_halo(x, layout, Halo(2, 1, 1, 3, "edge"), backend=backend),
        random_tiles(layout, 2, 1)[:1],
    )


@pytest.mark.parametrize("backend", FAST)
@given(layout=layouts((8,)), halo=halos())
def test_single_precision_is_as_exact_as_the_reference(backend: str, layout: Layout, halo: Halo) -> None:
    halo = halo._replace(fill="zero")
    tiles, kept = (x.detach() if x is not None else None for x in random_tiles(layout, 4))
    single = tiles.float(), layout, halo, kept.float() if kept is not None else None
    exact = fetch_halo(tiles, layout, halo, kept, backend="reference")
    unavoidable = (fetch_halo(*single, backend="reference") - exact).abs().max().item() if len(tiles) else 0
    found = fetch_halo(*single, backend=backend)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=2 * unavoidable + 1e-7)


@pytest.mark.parametrize("backend", EXACT)
def test_tiles_are_left_as_they_were(backend: str) -> None:
    layout = layout_of([[1, 1, 0, 0], [1, 1, 0, 0]], size=(3, 7))
    tiles = torch.randn(5, 2, 2, 2)
    before = tiles.clone()
    fetch_halo(tiles, layout, Halo.around(2), backend=backend)
    assert torch.equal(tiles, before)


def test_a_forced_implementation_that_does_not_exist_names_those_there_are() -> None:
    names = ", ".join(fetch_halo.names)
    with pytest.raises(ValueError, match=f"fetch_halo has no backend 'metal'; available: {names}"):
        fetch_halo(torch.zeros(1, 1, 1, 1), layout_of([[0]], 1), Halo(), backend="metal")


def test_images_do_not_see_one_another() -> None:
    layout = Plan.uniform(2, (4, 4), 4).layout
    tiles = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)])
    assert fetch_halo(tiles, layout, Halo.around(5, "edge"))[0].abs().max() == 0


def test_halving_twice_is_what_a_coarse_tile_sees_of_fine_ones() -> None:
    x = torch.randn(1, 3, 7, 13, dtype=torch.float64)
    levels = torch.tensor([[[2, 2, 2, 2, 0, 0, 0]] * 4])
    layout = Plan(levels, 2, (7, 13)).layout
    tiles = cut_tiles(x, layout, 2)
    quarter = halve(halve(x))
    bordered = fetch_halo(tiles, layout, Halo(right=2))[:1]
    torch.testing.assert_close(bordered, quarter[:, :, :2, :4])
