"""Pooling and upsampling on tiles equal the dense ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from torch import nn
from torch.nn import functional as F

from foveal.geometry.plan import Plan
from foveal.tiles import split
from strategies import plans
from tile_rules import SIZES, assert_equals_dense, image

# Pooling


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (3, 1), (5, 1), (1, 1), (1, 2)])
def test_max_pool2d(kernel: int, stride: int, size: tuple[int, int]) -> None:
    layer = nn.MaxPool2d(kernel, stride, kernel // 2)
    assert_equals_dense(lambda x: layer(x - 9), image(size))


@pytest.mark.parametrize("size", SIZES)
def test_max_pool2d_in_ceil_mode(size: tuple[int, int]) -> None:
    assert_equals_dense(lambda x: nn.MaxPool2d(2, ceil_mode=True)(x - 9), image(size))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
def test_avg_pool2d_with_padding(stride: int, counted: bool, size: tuple[int, int]) -> None:
    assert_equals_dense(nn.AvgPool2d(3, stride, 1, count_include_pad=counted), image(size))


@pytest.mark.parametrize("size", SIZES)
def test_avg_pool2d_in_ceil_mode_over_what_exists(size: tuple[int, int]) -> None:
    assert_equals_dense(nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False), image(size))


@pytest.mark.parametrize("counted", [True, False])
def test_explicit_padding_counts_in_an_average(counted: bool) -> None:
    pool = nn.AvgPool2d(3, 1, count_include_pad=counted)
    assert_equals_dense(lambda x: pool(F.pad(x, (1, 1, 1, 1))), image())


@given(plan=plans((8,), max_level=2))
def test_averages_over_what_exists_keep_a_constant(plan: Plan) -> None:
    x = split(torch.ones(len(plan.levels), 1, *plan.size), plan)
    found = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False).dense()
    torch.testing.assert_close(found, torch.ones_like(found))


# Upsampling


@pytest.mark.parametrize("size", [(16, 24), (8, 40), (4, 12)])
@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("by_size", [False, True])
def test_interpolate(by_size: bool, mode: str, factor: int, size: tuple[int, int]) -> None:
    def run(x: Any) -> Any:
        x = F.max_pool2d(x, factor)
        how = {"size": size} if by_size else {"scale_factor": factor}
        return F.interpolate(x, mode=mode, align_corners=None if mode == "nearest" else False, **how)

    assert_equals_dense(run, image(size))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_interpolate_and_crop_to_a_ragged_map(mode: str, size: tuple[int, int]) -> None:
    def run(x: Any) -> Any:
        large = F.interpolate(F.max_pool2d(x, 3, 2, 1), scale_factor=2, mode=mode)
        return large[:, :, : x.shape[2], : x.shape[3]] + x

    assert_equals_dense(run, image(size))


def test_upsample_modules_of_floats_and_pairs() -> None:
    for layer in (nn.Upsample(scale_factor=2.0), nn.Upsample(scale_factor=(2, 2), mode="bilinear")):
        assert_equals_dense(lambda x, layer=layer: layer(F.max_pool2d(x, 2)), image((16, 24)))


@pytest.mark.parametrize("size", [(16, 24), (8, 8)])
def test_pixel_shuffle(size: tuple[int, int]) -> None:
    assert_equals_dense(lambda x: nn.PixelShuffle(2)(F.max_pool2d(x, 2)), image(size))
