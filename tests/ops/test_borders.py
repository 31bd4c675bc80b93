"""What tiles see of finer neighbours: their average, the first sample; or nothing of any neighbour."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from foveal.geometry.halo_table import halo_table
from foveal.geometry.layout import BORDERS, Borders, Halo, Layout
from foveal.geometry.plan import SKIP, Plan
from foveal.kernels import build as native
from foveal.kernels.abi import plain, usable
from foveal.ops import Pooling, compose_tiles, enlarge, fetch_halo, max_pool
from foveal.tiles import split
from samples import assert_same, headless
from strategies import halos, layouts, random_tiles, sides

EXACT = ["reference", "torch"]


def layout_of(levels: list[list[int]], tile: int = 2, size: tuple[int, int] | None = None) -> Layout:
    return Plan(torch.tensor([levels]), tile, size or (len(levels) * tile, len(levels[0]) * tile)).layout


@pytest.mark.parametrize("borders", BORDERS)
@settings(max_examples=60)
@given(data=st.data())
def test_values_and_gradients_are_those_of_the_reference(borders: Borders, data: st.DataObject) -> None:
    layout = data.draw(layouts()).with_borders(borders)
    side, halo = data.draw(sides(layout.tile)), data.draw(halos())
    tiles, kept = random_tiles(layout, side)
    expected = fetch_halo(tiles, layout, halo, kept, backend="reference")
    found = fetch_halo(tiles, layout, halo, kept, backend="torch")
    assert_same(found, expected, [x for x in (tiles, kept) if x is not None])


@pytest.mark.parametrize("backend", EXACT)
def test_strided_takes_the_upper_left_of_finer_samples(backend: str) -> None:
    layout = layout_of([[1, 1, 0, 0], [1, 1, 0, 0]]).with_borders("strided")
    tiles = torch.tensor([[10, 11, 12, 13], [20, 22, 24, 30], [0] * 4, [40, 41, 42, 48], [0] * 4]).double()
    bordered = fetch_halo(tiles.view(5, 1, 2, 2), layout, Halo(right=2), backend=backend)
    assert bordered[0, 0].tolist() == [[10, 11, 20, 0], [12, 13, 40, 0]]


@pytest.mark.parametrize("backend", EXACT)
def test_strided_takes_the_first_of_many_finer_levels(backend: str) -> None:
    layout = layout_of([[2, 2, 2, 2, 0]] * 3, tile=1).with_borders("strided")
    tiles = torch.tensor([5.0, 1.0, 3.0, 7.0]).view(4, 1, 1, 1)
    assert fetch_halo(tiles, layout, Halo(right=1), backend=backend)[0, 0].tolist() == [[5, 1]]


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize(("fill", "outside"), [("zero", 0.0), ("lowest", torch.finfo(torch.float64).min)])
def test_zero_hides_other_tiles_and_leaves_the_image_s_own_border(
    backend: str, fill: str, outside: float
) -> None:
    layout = layout_of([[0, 0, SKIP]], tile=1).with_borders("zero")
    bordered = fetch_halo(torch.ones(2, 1, 1, 1).double(), layout, Halo(1, 1, fill=fill), backend=backend)
    assert bordered.flatten().tolist() == [outside, 1, 0, 0, 1, outside]


@pytest.mark.parametrize("backend", EXACT)
def test_zero_repeats_the_image_s_edge_where_the_tile_holds_it(backend: str) -> None:
    layout = layout_of([[0, 0]]).with_borders("zero")
    tiles = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]]).view(2, 1, 2, 2)
    bordered = fetch_halo(tiles, layout, Halo.around(1, "edge"), backend=backend)
    assert bordered[0, 0].tolist() == [[1, 1, 2, 0], [1, 1, 2, 0], [3, 3, 4, 0], [3, 3, 4, 0]]


@given(data=st.data())
def test_only_mixed_resolutions_tell_average_and_strided_apart(data: st.DataObject) -> None:
    layout = data.draw(layouts((4, 8)))
    tiles, kept = random_tiles(layout, 4)
    seen = [
        fetch_halo(tiles, layout.with_borders(rule), Halo.around(1), kept) for rule in ("average", "strided")
    ]
    mixed = len(halo_table(layout.with_borders("average"), 4, Halo.around(1)).mean) > 0
    assert mixed == (not torch.equal(*seen))


def run(network: nn.Module, image: Tensor, plan: Plan, borders: Borders) -> Tensor:
    with torch.no_grad():
        return network(split(image, plan, borders=borders)).dense()


def test_at_full_resolution_strided_is_dense_and_zero_is_not() -> None:
    network, image = headless(), torch.rand(1, 3, 40, 56)
    plan = Plan.uniform(1, (40, 56), 16)
    with torch.no_grad():
        dense = network(image)
    for borders in ("average", "strided"):
        torch.testing.assert_close(run(network, image, plan, borders), dense, rtol=1e-4, atol=1e-5)
    assert (run(network, image, plan, "zero") - dense).abs().max() > 1e-2


def test_at_mixed_resolutions_all_three_differ_and_average_is_what_is_taken_unasked() -> None:
    network, image = headless(), torch.rand(1, 3, 64, 64)
    plan = Plan(torch.tensor([[[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]]), 16, (64, 64))
    found = [run(network, image, plan, rule) for rule in BORDERS]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert (found[first] - found[second]).abs().max() > 1e-3
    with torch.no_grad():
        assert torch.equal(network(split(image, plan)).dense(), found[0])


@pytest.mark.skipif(not native.available(), reason="no compiler")
@pytest.mark.parametrize("borders", ["strided", "zero"])
def test_the_kernels_leave_other_borders_to_torch(borders: Borders) -> None:
    layout = layout_of([[1, 1, 0, 0], [1, 1, 0, 0]]).with_borders(borders)
    x = torch.randn(5, 2, 2, 2)
    pooling = Pooling((3, 3), (1, 1), (1, 1), Halo.around(1, "lowest"))
    for operation, rest in (
        (fetch_halo, Halo.around(1)),
        (max_pool, pooling),
        (enlarge, 2),
        (compose_tiles, 0),
    ):
        expected = operation(x, layout, rest, backend="reference")
        torch.testing.assert_close(operation(x, layout, rest), expected, rtol=1e-5, atol=1e-6)
        with pytest.raises(ValueError, match="does not support this case"):
            operation(x, layout, rest, backend="native")


@pytest.mark.skipif(not native.available(), reason="no compiler")
def test_plain_leaves_the_kernels_alone() -> None:
    with plain():
        assert not usable(torch.zeros(1))
    assert usable(torch.zeros(1))


def test_layouts_made_from_a_layout_keep_its_borders_and_tables_are_shared() -> None:
    layout = Plan.uniform(2, (8, 8), 4).layout
    other = layout.with_borders("zero")
    assert layout.with_borders("zero") is other and other.with_borders("zero") is other
    assert other.of_images([1])[0].borders == other.everything.borders == "zero"
    assert layout.borders == "average" and layout.with_borders("average") is layout


def test_memory_keeps_the_borders_that_are_asked_for() -> None:
    image, plan = torch.rand(1, 3, 8, 8), Plan.uniform(1, (8, 8), 4)
    memory = split(image, plan, remember=True, borders="zero").memory()
    later = Plan(torch.tensor([[[0, SKIP], [SKIP, SKIP]]]), 4, (8, 8))
    assert split(image, later, memory, borders="zero").layout.borders == "zero"


def test_unknown_borders_are_refused() -> None:
    with pytest.raises(ValueError, match="no borders 'mean'; give one of average, strided, zero"):
        split(torch.rand(1, 3, 8, 8), Plan.uniform(1, (8, 8), 4), borders="mean")
