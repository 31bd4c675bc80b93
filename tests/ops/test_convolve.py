from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from foveal.geometry.layout import Layout
from foveal.kernels import build as native
from foveal.ops import Convolution, Prologue, convolve
from foveal.ops.convolve.autotune import algorithms
from foveal.ops.convolve.native import by_algorithm as in_c
from strategies import layouts, random_tiles, sides, sources

FAST = ["torch", *(["native"] if native.available() else [])]


def random_convolution(source: random.Random, channels: int, stride: int) -> Convolution:
    """Windows, strides, groups and surroundings of all kinds."""
    rows, columns = source.choice([(1, 1), (2, 2), (3, 3), (1, 3), (5, 3), (7, 7)])
    dilation = source.choice([1, 1, 2])
    padding = (source.randint(0, dilation * (rows - 1)), source.randint(0, dilation * (columns - 1)))
    groups = source.choice([1, 1, channels])
    outputs = channels if groups > 1 else source.choice([1, 5, 16, 33, 70])
    low, high = source.choice([(-math.inf, math.inf), (0.0, math.inf), (0.0, 6.0)])
    numbers = torch.Generator().manual_seed(source.randint(0, 2**31))

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=numbers, dtype=torch.float64)

    before = None
    if source.random() < 0.5:
        before = Prologue(
            draw(channels) + 3, draw(channels), *source.choice([(-math.inf, math.inf), (0.0, 6.0)])
        )
    return Convolution(
        draw(outputs, channels // groups, rows, columns) / math.sqrt(channels * rows * columns),
        draw(outputs) if source.random() < 0.5 else None,
        stride,
        padding,
        dilation,
        groups,
        before,
        draw(outputs) if source.random() < 0.5 else None,
        low,
        high,
    )


def single(convolution: Convolution) -> Convolution:
    """The same in single precision."""
    c, before = convolution, convolution.prologue
    if before is not None:
        before = Prologue(before.scale.float(), before.shift.float(), before.low, before.high)
    bias, scale = (None if x is None else x.float() for x in (c.bias, c.residual_scale))
    return Convolution(
        c.weight.float(), bias, c.stride, c.padding, c.dilation, c.groups, before, scale, c.low, c.high
    )


def drawn(data: st.DataObject) -> tuple[Layout, Tensor, Tensor | None, Convolution, Tensor | None]:
    layout, source = data.draw(layouts()), data.draw(sources())
    stride = source.choice([1, 1, 2])
    side = source.choice([s for s in range(stride, layout.tile + 1, stride) if layout.tile % s == 0])
    channels = source.choice([1, 3, 16, 40])
    tiles, kept = random_tiles(layout, side, channels)
    convolution = random_convolution(source, channels, stride)
    outputs, small = len(convolution.weight), side // stride
    residual = None
    if source.random() < 0.5:
        residual = torch.randn(layout.computed, outputs, small, small, dtype=torch.float64)
    return layout, tiles.detach(), None if kept is None else kept.detach(), convolution, residual


def inside(x: Tensor, layout: Layout) -> Tensor:
    mask = layout.inside(x.shape[2])
    return x if mask is None else x.permute(0, 2, 3, 1)[mask]


@pytest.mark.parametrize("backend", FAST)
@settings(max_examples=200)
@given(data=st.data())
def test_tiles_are_convolved_as_by_the_reference(backend: str, data: st.DataObject) -> None:
    layout, tiles, kept, convolution, residual = drawn(data)
    if not layout.computed:
        return
    exact = convolve(tiles, layout, convolution, residual, kept, backend="reference")
    inputs = [None if x is None else x.float() for x in (tiles, residual, kept)]
    before = [None if x is None else x.clone() for x in inputs]
    found = convolve(inputs[0], layout, single(convolution), *inputs[1:], backend=backend)
    assert found.shape == exact.shape and found.dtype == torch.float32
    torch.testing.assert_close(inside(found.double(), layout), inside(exact, layout), rtol=1e-4, atol=2e-5)
    for x, y in zip(inputs, before, strict=True):
        assert x is None or torch.equal(x, y)


@pytest.mark.parametrize("backend", FAST)
@settings(max_examples=100)
@given(source=sources())
def test_a_dense_map_is_convolved_as_by_torch(backend: str, source: random.Random) -> None:
    channels, stride = source.choice([1, 3, 16, 40]), source.choice([1, 2])
    height, width, images = source.randint(1, 40), source.randint(1, 40), source.randint(1, 3)
    c = random_convolution(source, channels, stride)
    x = torch.randn(images, channels, height, width, dtype=torch.float64)
    before = x if c.prologue is None else c.prologue(x)
    top, left = c.padding
    behind = [
        max(0, (-(-n // stride) - 1) * stride + c.dilation * (k - 1) + 1 - p - n)
        for n, k, p in zip((height, width), c.kernel, c.padding, strict=True)
    ]
    padded = F.pad(before, (left, behind[1], top, behind[0]))
    raw = F.conv2d(padded, c.weight, c.bias, stride, 0, c.dilation, c.groups)
    raw = raw[:, :, : -(-height // stride), : -(-width // stride)]
    residual = torch.randn_like(raw)
    scale = 1 if c.residual_scale is None else c.residual_scale.view(1, -1, 1, 1)
    expected = (raw + scale * residual).clamp(c.low, c.high)
    found = convolve(x.float(), None, single(c), residual.float(), backend=backend)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.skipif(not native.available(), reason="no compiler")
@settings(max_examples=150)
@given(data=st.data(), source=sources())
def test_every_algorithm_computes_the_same(data: st.DataObject, source: random.Random) -> None:
    layout = data.draw(layouts())
    side = data.draw(sides(layout.tile))
    channels, outputs = source.choice([16, 32, 48]), source.choice([16, 32, 80])
    tiles, kept = random_tiles(layout, side, channels)
    if not len(tiles):
        return
    numbers = torch.Generator().manual_seed(source.randint(0, 2**31))
    weight = torch.randn(outputs, channels, 3, 3, generator=numbers, dtype=torch.float64) / channels**0.5 / 3
    before = source.choice([None, Prologue(torch.rand(channels) + 0.5, torch.randn(channels))])
    exact_before = before and Prologue(before.scale.double(), before.shift.double())
    bias = torch.randn(outputs, generator=numbers, dtype=torch.float64)
    residual = torch.randn(len(tiles), outputs, side, side, generator=numbers, dtype=torch.float64)
    scale = source.choice([None, torch.rand(outputs)])
    c = Convolution(weight.float(), bias.float(), 1, (1, 1), 1, 1, before, scale, 0.0, 6.0)
    exact = Convolution(
        weight, bias, 1, (1, 1), 1, 1, exact_before, None if scale is None else scale.double(), 0.0, 6.0
    )
    expected = convolve(tiles.detach(), layout, exact, residual, kept, backend="reference")
    inputs = [None if x is None else x.detach().float() for x in (tiles, residual, kept)]
    names = algorithms(c)
    assert {"direct", "winograd2", "winograd4"} <= set(names)
    for name in names:
        found = in_c(inputs[0], layout, c, *inputs[1:], algorithm=name)
        torch.testing.assert_close(
            inside(found.double(), layout), inside(expected, layout).detach(), rtol=1e-4, atol=5e-5
        )


@pytest.mark.skipif(not native.available(), reason="no compiler")
@pytest.mark.parametrize("algorithm", ["winograd2", "winograd4"])
@pytest.mark.parametrize("size", [(1, 1), (4, 4), (9, 30), (17, 8)])
def test_fewer_multiplications_on_a_dense_map(algorithm: str, size: tuple[int, int]) -> None:
    x, weight = torch.randn(2, 32, *size), torch.randn(64, 32, 3, 3) / 17
    c = Convolution(weight, None, 1, (1, 1))
    expected = F.conv2d(x.double(), weight.double(), padding=1)
    torch.testing.assert_close(in_c(x, None, c, algorithm=algorithm).double(), expected, rtol=1e-4, atol=5e-5)
    with pytest.raises(ValueError, match="possible are direct"):
        in_c(x, None, Convolution(weight, None, 2, (1, 1)), algorithm=algorithm)


@pytest.mark.skipif(not native.available(), reason="no compiler")
def test_the_kernels_are_chosen_where_they_fit() -> None:
    x, c = torch.randn(1, 4, 5, 5), Convolution(torch.randn(8, 4, 3, 3), padding=(1, 1))
    torch.testing.assert_close(convolve(x, None, c), convolve(x, None, c, backend="native"), rtol=0, atol=0)
    doubled = convolve(x.double(), None, Convolution(c.weight.double(), padding=(1, 1)))
    assert doubled.dtype == torch.float64
    with pytest.raises(ValueError, match="single precision"):
        convolve(x.double(), None, c, backend="native")
    with torch.enable_grad():
        leaf = x.clone().requires_grad_()
        convolve(leaf, None, c).sum().backward()
    assert leaf.grad is not None
