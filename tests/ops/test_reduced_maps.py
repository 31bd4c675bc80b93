from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.kernels import build
from foveal.kernels.abi import index_of
from foveal.ops.reduced import maps_native, maps_reference, native, reference
from foveal.ops.reduced.spec import Format, Map, from_bf16, to_bf16
from reduced_maps import (
    assert_same,
    dense_map,
    map_of,
    random_convolution,
    random_format,
    random_residual,
    random_rows,
)
from strategies import layouts, sides, sources

pytestmark = pytest.mark.skipif(not build.available(), reason="no compiler")
KINDS = ["u8", "bf16"]


@pytest.mark.parametrize(("kind", "path"), [(kind, path) for kind in KINDS for path in ("plain", "best")])
@settings(max_examples=150)
@given(data=st.data(), source=sources())
def test_depthwise_windows_are_summed_as_by_the_reference(
    kind: str, path: str, data: st.DataObject, source: random.Random
) -> None:
    layout = data.draw(layouts())
    if not layout.computed:
        return
    format, channels = random_format(source, kind), source.choice([1, 3, 16, 40, 65, 130])
    c = random_convolution(source, channels, format, depthwise=True)
    if source.random() < 0.5:  # what networks of depthwise layers have
        c = replace(c, target=random_format(source, kind), residual=None)
    side = source.choice([s for s in range(c.stride, layout.tile + 1, c.stride) if layout.tile % s == 0])
    border = max(*c.padding, *(c.dilation * (k - 1) - p for k, p in zip(c.kernel, c.padding, strict=True)))
    x = map_of(source, layout, side, border, channels, format)
    residual = random_residual(source, x, c)
    expected = reference.convolve(x, c, residual)
    assert_same(native.convolve(x, c, residual, path), expected, c.target, exact=kind == "u8")


@pytest.mark.parametrize("kind", [*KINDS, "f32"])
@settings(max_examples=100)
@given(data=st.data(), source=sources())
def test_the_largest_sample_of_windows(kind: str, data: st.DataObject, source: random.Random) -> None:
    layout = data.draw(layouts())
    if not layout.computed:
        return
    format, channels = random_format(source, kind), source.choice([1, 3, 16, 70])
    c = random_convolution(source, channels, format if kind != "f32" else Format("bf16"), depthwise=True)
    side = source.choice([s for s in range(c.stride, layout.tile + 1, c.stride) if layout.tile % s == 0])
    border = max(*c.padding, *(c.dilation * (k - 1) - p for k, p in zip(c.kernel, c.padding, strict=True)))
    x = map_of(source, layout, side, border, channels, format)
    np.testing.assert_array_equal(maps_native.max_pool(x, c), maps_reference.max_pool(x, c))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100)
@given(data=st.data(), source=sources())
def test_enlargement_and_a_sum(kind: str, data: st.DataObject, source: random.Random) -> None:
    layout, channels = data.draw(layouts()), source.choice([1, 16, 70])
    if not layout.computed:
        return
    format, target = random_format(source, kind), random_format(source, source.choice(["u8", "bf16", "f32"]))
    side = data.draw(sides(layout.tile))
    if source.random() < 0.5:
        x = map_of(source, layout, side, 1, channels, format)
    else:
        x = dense_map(source, 2, (source.randint(1, 9), source.randint(1, 9)), channels, format)
    factor = source.choice([1, 2, 3, 4])
    more, other = None, random_format(source, source.choice(["u8", "bf16", "f32"]))
    if source.random() < 0.5:
        rows = x.tiles * x.sides[0] * x.sides[1] * factor**2
        more = random_rows(source, other, rows, channels), other
    low = source.choice([0.0, -np.inf])
    expected = maps_reference.enlarge(x, factor, target, more, low)
    assert_same(maps_native.enlarge(x, factor, target, more, low), expected, target, exact=False)


@settings(max_examples=100)
@given(source=sources())
def test_rows_change_their_format(source: random.Random) -> None:
    format, target = (random_format(source, source.choice(["u8", "bf16", "f32"])) for _ in range(2))
    channels = source.choice([1, 3, 4, 64, 150])
    rows = np.ascontiguousarray(random_rows(source, format, source.randint(1, 50), channels)[:, :channels])
    numbers = np.random.default_rng(source.randint(0, 2**31))
    scale, shift = numbers.standard_normal((2, channels)).astype(np.float32)
    low = source.choice([0.0, -np.inf])
    found = maps_native.change(rows, format, target, scale, shift, low)
    expected = maps_reference.change(rows, format, target, scale, shift, low)
    assert_same(np.ascontiguousarray(found[:, :channels]), expected, target, exact=False)
    assert (target.decode(found[:, channels:]) == 0).all()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100)
@given(data=st.data(), source=sources())
def test_finer_samples_are_averaged(kind: str, data: st.DataObject, source: random.Random) -> None:
    layout, channels = data.draw(layouts()), source.choice([1, 16, 70])
    if not layout.computed:
        return
    format, side = random_format(source, kind), data.draw(sides(layout.tile))
    x, index = map_of(source, layout, side, 1, channels, format), index_of(layout, side, 1)
    lists = index.start.numpy(), index.source.numpy(), index.share.numpy()
    assert_same(maps_native.means(x, *lists), maps_reference.means(x, *lists), format, exact=False)


@pytest.mark.parametrize("kind", [*KINDS, "f32"])
@settings(max_examples=50)
@given(source=sources())
def test_maps_are_halved(kind: str, source: random.Random) -> None:
    format = random_format(source, kind)
    x = dense_map(source, 2, (source.randint(1, 9), source.randint(1, 9)), source.choice([3, 64, 70]), format)
    assert_same(maps_native.halve(x), maps_reference.halve(x), format)


def test_bfloat16_is_that_of_torch() -> None:
    special = [0.0, -0.0, 1.0, np.inf, -np.inf, np.nan, 3.4e38, 1e-40, 1.00390625, 1.01171875]
    x = np.concatenate([np.array(special, np.float32), np.random.default_rng(0).standard_normal(1000)])
    x = x.astype(np.float32)
    expected = torch.from_numpy(x).bfloat16().float().numpy()
    np.testing.assert_array_equal(from_bf16(to_bf16(x)), expected)
    ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
    rows = np.ascontiguousarray(x[:1008].reshape(-1, 4))
    found = maps_native.change(rows, Format("f32"), Format("bf16"), ones, zeros, -np.inf)
    np.testing.assert_array_equal(from_bf16(found).ravel(), expected[:1008])


def test_formats_cover_their_range_and_zero() -> None:
    format = Format.of_range(-1.0, 3.0)
    values = np.linspace(-1, 3, 50, dtype=np.float32)[None]
    assert np.abs(format.decode(format.encode(values)) - values).max() <= format.scale
    assert format.decode(format.encode(np.zeros((1, 1)))) == 0
    assert Format.of_range(0.5, 2.0).zero == 0 and Format.of_range(0.0, 0.0).scale == 1
    for wrong in ({"kind": "u8", "scale": 0.0}, {"kind": "u8", "zero": 256}, {"kind": "bf16", "zero": 1}):
        with pytest.raises(ValueError, match="zero"):
            Format(**wrong)
    with pytest.raises(ValueError, match="possible are f32, bf16, u8"):
        Format("s8")  # type: ignore[arg-type]


def test_what_kernels_would_read_beyond_is_refused() -> None:
    x = Map(Format("bf16"), np.zeros((4, 4), np.uint16), 2, 2)
    with pytest.raises(ValueError, match="must be uint8"):
        maps_native.enlarge(x, 2, Format("f32"), (np.zeros((4, 4), np.uint8), Format("u8")))
    with pytest.raises(ValueError, match="a border of 1"):
        index = np.zeros((1, 2, 2), np.int32)
        maps_native.enlarge(Map(Format("bf16"), x.own, 2, 2, index), 2, Format("f32"))
    with pytest.raises(ValueError, match="3 channels, scale 4"):
        rows = np.zeros((2, 3), np.uint8)
        maps_native.change(
            rows, Format("u8"), Format("u8"), np.ones(4, np.float32), np.ones(3, np.float32), 0
        )
