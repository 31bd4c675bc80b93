"""Convolutions and transposed convolutions on tiles equal the dense ones."""

from __future__ import annotations

import warnings
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from torch import nn
from torch.nn import functional as F

from foveal.tiles import windows
from strategies import sources
from tile_rules import SIZES, assert_equals_dense, image


def random_convolution(source: Random, stride: int) -> nn.Conv2d:
    """Any convolution whose result has the map's side divided by the stride, rounded up."""
    kernels = [source.choice([1, 3, 5, 7]) for _ in range(2)]
    dilations = [source.choice([1, 1, 2, 3]) for _ in range(2)]
    channels, groups = source.choice([(4, 1), (8, 1), (8, 2), (8, 4), (4, 4)])
    reach = [d * (k - 1) for k, d in zip(kernels, dilations, strict=True)]
    return nn.Conv2d(
        4,
        channels,
        kernels,
        stride,
        [r // 2 for r in reach],
        dilations,
        groups,
        bias=source.random() < 0.5,
    ).double()


@settings(max_examples=60)
@given(source=sources())
def test_conv2d(source: Random) -> None:
    stride = source.choice([1, 1, 2, 4])
    size = source.randint(1, 26), source.randint(1, 26)
    assert_equals_dense(random_convolution(source, stride), image(size))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel", range(1, 8))
@pytest.mark.parametrize("dilation", [1, 2])
def test_conv2d_with_padding_same(dilation: int, kernel: int, size: tuple[int, int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of the copy that an even kernel needs
        assert_equals_dense(nn.Conv2d(4, 3, kernel, padding="same", dilation=dilation).double(), image(size))


@pytest.mark.parametrize("size", [(16, 24), (8, 40)])
@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (4, 4), (1, 2), (1, 4), (3, 4), (2, 4)])
def test_conv2d_without_padding_on_whole_strides(kernel: int, stride: int, size: tuple[int, int]) -> None:
    assert_equals_dense(nn.Conv2d(4, 3, kernel, stride).double(), image(size))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_convolution(stride: int, size: tuple[int, int]) -> None:
    assert_equals_dense(nn.Conv2d(4, 4, 5, stride, 2, groups=4).double(), image(size))


@pytest.mark.parametrize("size", [*SIZES, (15, 18), (2, 3)])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 2, 1), (5, 2, 1), (3, 1, 2), (2, 2, 1)])
def test_explicit_same_padding_before_a_convolution(
    kernel: int, stride: int, dilation: int, size: tuple[int, int]
) -> None:
    layer = nn.Conv2d(4, 3, kernel, stride, dilation=dilation).double()

    def run(x: Any) -> Any:
        height, width = (
            max((-(-side // stride) - 1) * stride + (kernel - 1) * dilation + 1 - side, 0)
            for side in x.shape[2:]
        )
        return layer(F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2)))

    assert_equals_dense(run, image(size))


def test_explicit_padding_of_the_width_only() -> None:
    layer = nn.Conv2d(4, 3, (1, 3)).double()
    assert_equals_dense(lambda x: layer(F.pad(x, (1, 1))), image())


def test_a_convolution_sees_zeros_outside_whatever_the_tiles_hold_there() -> None:
    layer = nn.Conv2d(4, 3, 3, padding=1).double()
    assert_equals_dense(lambda x: layer(x + 7), image())
    assert_equals_dense(lambda x: layer(F.max_pool2d(x.log(), 3, 1, 1)), image().abs())


@pytest.mark.parametrize("size", [(16, 24), (12, 20)])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "extra"),
    [(2, 2, 0, 0), (4, 2, 1, 0), (3, 2, 1, 1), (1, 2, 0, 1), (3, 1, 1, 0), (8, 4, 2, 0), (2, 4, 0, 2)],
)
def test_conv_transpose2d(kernel: int, stride: int, padding: int, extra: int, size: tuple[int, int]) -> None:
    layer = nn.ConvTranspose2d(4, 6, kernel, stride, padding, extra, groups=2).double()
    assert_equals_dense(lambda x: layer(F.max_pool2d(x, stride, stride)), image(size))


@pytest.mark.parametrize("stride", [1, 2])
def test_windows_over_many_tiles_are_looked_up(stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Borders of 36 samples around tiles of 4 would be 361 times the map."""
    monkeypatch.setattr(windows, "fetch", None)
    layer = nn.Conv2d(4, 3, 3, stride, 36, 36).double()
    assert_equals_dense(layer, image((96, 128)), tile=4)
