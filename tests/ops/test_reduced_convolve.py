from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from foveal.kernels import build
from foveal.ops.reduced import native, reference
from foveal.ops.reduced.fold import quantise_weight
from foveal.ops.reduced.spec import Format, Map, ReducedConvolution
from reduced_maps import (
    assert_same,
    dense_map,
    map_of,
    random_convolution,
    random_format,
    random_residual,
)
from strategies import layouts, sources

pytestmark = pytest.mark.skipif(not build.available(), reason="no compiler")
PATHS = [(k, p) for k in ("u8", "bf16") for p in (native.paths(k) if build.available() else ())]


@pytest.mark.parametrize(("kind", "path"), PATHS)
@settings(max_examples=100)
@given(data=st.data(), source=sources())
def test_tiles_are_convolved_as_by_the_reference(
    kind: str, path: str, data: st.DataObject, source: random.Random
) -> None:
    layout = data.draw(layouts())
    if not layout.computed:
        return
    format, channels = random_format(source, kind), source.choice([1, 3, 16, 40, 65])
    c = random_convolution(source, channels, format)
    side = source.choice([s for s in range(c.stride, layout.tile + 1, c.stride) if layout.tile % s == 0])
    border = max(*c.padding, *(c.dilation * (k - 1) - p for k, p in zip(c.kernel, c.padding, strict=True)))
    x = map_of(source, layout, side, border, channels, format)
    residual = random_residual(source, x, c)
    found = native.convolve(x, c, residual, path)
    assert_same(found, reference.convolve(x, c, residual), c.target, exact=kind == "u8")


@pytest.mark.parametrize(("kind", "path"), PATHS)
@settings(max_examples=50)
@given(source=sources())
def test_a_dense_map_is_convolved_as_by_the_reference(kind: str, path: str, source: random.Random) -> None:
    format, channels = random_format(source, kind), source.choice([3, 16, 40])
    c = random_convolution(source, channels, format)
    sides = source.randint(1, 30), source.randint(1, 30)
    x = dense_map(source, source.randint(1, 3), sides, channels, format)
    residual = random_residual(source, x, c)
    found = native.convolve(x, c, residual, path)
    assert_same(found, reference.convolve(x, c, residual), c.target, exact=kind == "u8")


@pytest.mark.parametrize("path", native.paths("u8") if build.available() else ())
def test_sums_of_the_largest_products_are_exact(path: str) -> None:
    x = Map(Format("u8"), np.full((25, 516), 255, np.uint8), 5, 5)
    weight = np.where(np.arange(36) % 2, 1, -1)[:, None, None, None] * np.ones((36, 516, 3, 3))
    c = ReducedConvolution(weight.astype(np.float32), Format("u8"), Format("f32"), padding=(1, 1))
    folded = native.fold(c)
    folded.scale[:] = 1
    found = native.convolve(x, c, path=path, folded=folded)
    expected = [np.float32((-1) ** (o + 1) * 255 * 127 * 516 * 9) for o in range(36)]
    assert found.reshape(5, 5, 36)[2, 2].tolist() == expected


@pytest.mark.parametrize(("kind", "error"), [("u8", 0.02), ("bf16", 0.01)])
def test_the_result_is_near_that_in_single_precision(kind: str, error: float) -> None:
    numbers = np.random.default_rng(1)
    values = numbers.standard_normal((2, 9, 11, 24)).astype(np.float32)
    weight = numbers.standard_normal((40, 24, 3, 3)).astype(np.float32) / 15
    format = Format.of_range(values.min(), values.max()) if kind == "u8" else Format("bf16")
    x = Map(format, format.rows(values), 9, 11)
    c = ReducedConvolution(weight, format, Format("f32"), padding=(1, 1))
    expected = F.conv2d(torch.from_numpy(values).permute(0, 3, 1, 2), torch.from_numpy(weight), padding=1)
    found = torch.from_numpy(native.convolve(x, c).reshape(2, 9, 11, 40)).permute(0, 3, 1, 2)
    assert float((found - expected).std() / expected.std()) < error


def test_weights_are_quantised_per_output() -> None:
    weight = np.array([[[[1.0, -2.0]]], [[[0.0, 0.0]]], [[[1e-3, 5e-4]]]])
    steps, scale = quantise_weight(weight)
    assert steps.reshape(3, 2).tolist() == [[64, -127], [0, 0], [127, 64]]
    np.testing.assert_allclose(scale, [2 / 127, 1, 1e-3 / 127])


def test_what_does_not_belong_together_is_refused() -> None:
    c = ReducedConvolution(np.ones((4, 8, 1, 1), np.float32), Format("u8"), Format("u8"))
    x = Map(Format("u8"), np.zeros((4, 8), np.uint8), 2, 2)
    with pytest.raises(ValueError, match="the convolution takes"):
        native.convolve(Map(Format("u8"), np.zeros((4, 4), np.uint8), 2, 2), c)
    with pytest.raises(ValueError, match="residual"):
        native.convolve(x, c, np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match="this processor has only"):
        native.convolve(x, c, path="neon" if "avx2" in native.paths("u8") else "avx2")
    with pytest.raises(ValueError, match="multiple of 4"):
        Map(Format("u8"), np.zeros((4, 3), np.uint8), 2, 2)
