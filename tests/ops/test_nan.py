"""NaN that is made on the way stays NaN: no clamp and no maximum turns it into a number."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.geometry.layout import Halo
from foveal.geometry.plan import Plan
from foveal.kernels import build
from foveal.ops import Convolution, Pooling, Prologue, convolve, max_pool
from foveal.ops.convolve.autotune import algorithms
from foveal.ops.convolve.native import by_algorithm
from foveal.ops.reduced import maps_native, native
from foveal.ops.reduced.spec import Format, Map, ReducedConvolution, from_bf16

pytestmark = pytest.mark.skipif(not build.available(), reason="no compiler")
CLAMPS = [(-math.inf, math.inf), (0.0, math.inf), (0.0, 6.0)]
PLACES = [(0, 0, 0, 0), (0, 5, 3, 7), (0, 38, 11, 11)]


def spoiled(channels: int, value: float) -> Tensor:
    x = torch.rand(1, channels, 12, 12, generator=torch.Generator().manual_seed(0))
    for n, c, i, j in PLACES:
        x[n, c % channels, i, j] = value
    return x


def assert_same_nan(found: Tensor, expected: Tensor) -> None:
    assert expected.isnan().any()
    assert torch.equal(found.isnan(), expected.isnan())
    real = ~expected.isnan()
    torch.testing.assert_close(found[real], expected[real], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("low", "high"), CLAMPS)
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize(("channels", "outputs"), [(3, 32), (16, 32), (5, 7)])
def test_convolutions(kernel: int, channels: int, outputs: int, low: float, high: float) -> None:
    x, weight = spoiled(channels, math.nan), torch.randn(outputs, channels, kernel, kernel)
    c = Convolution(weight, None, 1, (kernel // 2, kernel // 2), low=low, high=high)
    exact = F.conv2d(x, weight, padding=kernel // 2).clamp(low, high)
    for name in set(algorithms(c)) - {"winograd2", "winograd4"}:  # which spread it over their squares
        assert_same_nan(by_algorithm(x, None, c, algorithm=name), exact)
    for name in set(algorithms(c)) & {"winograd2", "winograd4"}:
        assert by_algorithm(x, None, c, algorithm=name)[exact.isnan()].isnan().all()


@pytest.mark.parametrize(("low", "high"), CLAMPS)
def test_residuals(low: float, high: float) -> None:
    x, weight, more = torch.rand(1, 16, 12, 12), torch.randn(32, 16, 1, 1), spoiled(32, math.nan)
    c = Convolution(weight, None, 1, (0, 0), residual_scale=torch.ones(32), low=low, high=high)
    exact = (F.conv2d(x, weight) + more).clamp(low, high)
    for name in algorithms(c):
        assert_same_nan(by_algorithm(x, None, c, more, algorithm=name), exact)


@pytest.mark.parametrize("channels", [5, 16, 40])
@pytest.mark.parametrize(("low", "high"), CLAMPS)
def test_depthwise_and_what_comes_before(channels: int, low: float, high: float) -> None:
    x, weight = spoiled(channels, math.nan), torch.randn(channels, 1, 3, 3)
    c = Convolution(weight, None, 1, (1, 1), 1, channels, low=low, high=high)
    exact = F.conv2d(x, weight, padding=1, groups=channels).clamp(low, high)
    assert_same_nan(convolve(x, None, c, backend="native"), exact)
    before, dense = (
        Prologue(torch.ones(channels), torch.zeros(channels), low, high),
        torch.ones(8, channels, 1, 1),
    )
    found = convolve(x, None, Convolution(dense, None, 1, (0, 0), prologue=before), backend="native")
    assert_same_nan(found, F.conv2d(x.clamp(low, high), dense))


@pytest.mark.parametrize("channels", [5, 16, 40])
def test_maxima(channels: int) -> None:
    layout = Plan.uniform(1, (12, 12), 12).layout
    pooling = Pooling((3, 3), (1, 1), (1, 1), Halo(1, 1, 1, 1, "lowest"))
    found = max_pool(spoiled(channels, math.nan), layout, pooling, backend="native")
    assert_same_nan(found, F.max_pool2d(spoiled(channels, math.nan), 3, 1, 1))


def in_bf16(x: Tensor) -> Map:
    format = Format("bf16")
    return Map(format, format.rows(x[0].permute(1, 2, 0).reshape(-1, x.shape[1]).numpy()), 12, 12)


def real(rows: np.ndarray, channels: int, target: str) -> Tensor:
    values = from_bf16(rows) if target == "bf16" else rows
    return torch.from_numpy(values[:, :channels]).reshape(1, 12, 12, channels).permute(0, 3, 1, 2)


@pytest.mark.parametrize("target", ["bf16", "f32"])
@pytest.mark.parametrize(("low", "high"), CLAMPS)
@pytest.mark.parametrize("depthwise", [False, True])
def test_bfloat16(depthwise: bool, low: float, high: float, target: str) -> None:
    channels = 40
    x, weight = spoiled(channels, math.nan), torch.ones(channels, 1 if depthwise else channels, 3, 3)
    c = ReducedConvolution(
        weight.numpy(),
        Format("bf16"),
        Format(target),
        padding=(1, 1),
        depthwise=depthwise,
        low=low,
        high=high,
    )
    groups = channels if depthwise else 1
    exact = F.conv2d(x, weight, padding=1, groups=groups).clamp(low, high)
    for path in native.paths("bf16"):
        found = real(native.convolve(in_bf16(x), c, path=path), channels, target)
        assert torch.equal(found.isnan(), exact.isnan()), path
    assert exact.isnan().any()


def test_maxima_in_bfloat16() -> None:
    x = spoiled(40, math.nan)
    c = ReducedConvolution(
        np.ones((40, 1, 3, 3), np.float32), Format("bf16"), Format("bf16"), padding=(1, 1), depthwise=True
    )
    found = real(maps_native.max_pool(in_bf16(x), c), 40, "bf16")
    assert torch.equal(found.isnan(), F.max_pool2d(x, 3, 1, 1).isnan())
