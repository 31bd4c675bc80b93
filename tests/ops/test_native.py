"""The C kernels beside the references, on random quadtrees with kept tiles and places without any."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from foveal.geometry.layout import Halo, Layout
from foveal.kernels import build as native
from foveal.ops import Pooling, classify, compose_tiles, cut_tiles, enlarge, fetch_halo, halve, max_pool
from strategies import halos, layouts, random_tiles, sides, sources

pytestmark = pytest.mark.skipif(not native.available(), reason="no compiler")


def drawn(data: st.DataObject) -> tuple[Layout, int, Tensor, Tensor | None]:
    layout = data.draw(layouts())
    side = data.draw(sides(layout.tile))
    tiles, kept = random_tiles(layout, side, data.draw(st.sampled_from([1, 3, 16, 37])))
    return layout, side, tiles.detach(), None if kept is None else kept.detach()


def narrow(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.float()


@settings(max_examples=200)
@given(data=st.data())
def test_borders_are_those_of_the_reference(data: st.DataObject) -> None:
    layout, _, tiles, kept = drawn(data)
    halo = data.draw(halos())
    exact = fetch_halo(tiles, layout, halo, kept, backend="reference").float()
    lowest = torch.finfo(torch.float32).min
    exact = exact.clamp(min=lowest)  # the lowest number in double precision is none in single
    found = fetch_halo(tiles.float(), layout, halo, narrow(kept), backend="native")
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-6)


@settings(max_examples=100)
@given(data=st.data(), source=sources())
def test_maxima_are_those_of_the_reference(data: st.DataObject, source: random.Random) -> None:
    layout, side, tiles, kept = drawn(data)
    stride = source.choice([s for s in (1, 2) if side % s == 0])
    kernel, dilation = source.choice([((3, 3), 1), ((2, 2), 1), ((3, 3), 2), ((5, 1), 1)])
    reach = [dilation * (k - 1) for k in kernel]
    top, left = (source.randint(0, r) for r in reach)
    bottom, right = (max(0, r - p - (stride - 1)) for r, p in zip(reach, (top, left), strict=True))
    halo = Halo(left, right, top, bottom, "lowest")
    pooling = Pooling(kernel, (stride, stride), (dilation, dilation), halo)
    exact = max_pool(tiles.float(), layout, pooling, narrow(kept), backend="reference")
    found = max_pool(tiles.float(), layout, pooling, narrow(kept), backend="native")
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-6)


@settings(max_examples=100)
@given(data=st.data())
def test_enlarged_tiles_are_those_of_the_reference(data: st.DataObject) -> None:
    layout, _, tiles, kept = drawn(data)
    factor = data.draw(st.sampled_from([2, 3, 4, 8]))
    exact = enlarge(tiles, layout, factor, kept, backend="reference")
    found = enlarge(tiles.float(), layout, factor, narrow(kept), backend="native")
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-6)


@settings(max_examples=150)
@given(data=st.data())
def test_maps_are_cut_and_composed_as_by_the_reference(data: st.DataObject) -> None:
    layout, side, tiles, kept = drawn(data)
    base = data.draw(st.integers(0, min(layout.levels, default=0)))
    dense = torch.randn(layout.images, tiles.shape[1], *layout.extent(side, base))
    cut = [cut_tiles(dense, layout, side, base, backend=backend) for backend in ("reference", "native")]
    torch.testing.assert_close(cut[1], cut[0], rtol=1e-5, atol=1e-6)
    pool = tiles if kept is None else torch.cat([tiles, kept])
    exact = compose_tiles(pool, layout, base, backend="reference")
    found = compose_tiles(pool.float(), layout, base, backend="native")
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-6)


@given(source=sources())
def test_halved_maps_are_those_of_torch(source: random.Random) -> None:
    x = torch.randn(source.randint(1, 2), source.randint(1, 20), source.randint(1, 9), source.randint(1, 9))
    exact = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
    torch.testing.assert_close(halve(x), exact, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(halve(x.double()).float(), exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", ["torch", "native"])
@given(source=sources())
def test_labels_are_those_of_the_reference(backend: str, source: random.Random) -> None:
    shape = source.randint(1, 2), source.randint(1, 40), source.randint(1, 40), source.randint(1, 40)
    factor = source.choice([1, 2, 4, 8])
    size = tuple(source.randint((n - 1) * factor + 1, n * factor) for n in shape[2:])
    logits = torch.randn(shape)
    if source.random() < 0.5:  # regions of one class, boundaries between them
        logits = F.interpolate(torch.randn(*shape[:2], 3, 3), size=shape[2:], mode="bicubic")
    exact = classify(logits, size, backend="reference")
    found = classify(logits, size, backend=backend)
    assert found.shape == exact.shape and found.dtype == torch.uint8
    assert (found != exact).float().mean() < 1e-3  # logits may be equal but for rounding


def test_the_first_of_equal_classes_is_named() -> None:
    logits = torch.zeros(1, 5, 3, 3)
    logits[:, 2:] = 1
    assert (classify(logits, (12, 12), backend="native") == 2).all()


def test_all_256_classes_can_be_named() -> None:
    logits = torch.zeros(1, 256, 2, 2)
    logits[:, 255] = 1
    assert (classify(logits, (2, 2), backend="native") == 255).all()
