"""Modules that run on the composed dense map."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.geometry.plan import Plan
from foveal.ops import halve
from foveal.tiles import NoTileRule, TileTensor, run_dense, split
from tile_rules import RAGGED, SIZES, Pyramid, assert_equals_dense, image

# Dense modules


@pytest.mark.parametrize("size", SIZES)
def test_a_dense_module_sees_the_dense_map(size: tuple[int, int]) -> None:
    assert_equals_dense(run_dense(Pyramid()), image(size))


@pytest.mark.parametrize("level", [1, 2])
def test_a_dense_module_sees_the_reduced_map_of_an_image_that_is_coarse_everywhere(level: int) -> None:
    x, levels = image((32, 32)), torch.zeros(2, 4, 4, dtype=torch.int8)
    levels[1] = level
    found = run_dense(Pyramid())(split(x, Plan(levels, 8, (32, 32)))).dense()
    small = halve(x[1:], level)
    torch.testing.assert_close(found[:1], Pyramid()(x[:1]))
    expected = F.interpolate(Pyramid()(small), scale_factor=2**level, mode="bilinear")
    torch.testing.assert_close(found[1:], expected)


def test_what_a_dense_module_says_of_each_image_comes_back_in_order() -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    levels = torch.tensor([1, 0, 2, 0])[:, None, None].expand(4, 4, 4)
    x = torch.arange(4.0)[:, None, None, None].expand(4, 1, 32, 32)
    assert run_dense(Mean())(split(x, Plan(levels, 8, (32, 32)))).flatten().tolist() == [0, 1, 2, 3]


def test_a_dense_module_may_change_the_stride_and_take_and_give_several_maps() -> None:
    class Several(nn.Module):
        def forward(self, maps: list[Tensor], factor: int = 1) -> tuple[Tensor, list[Tensor]]:
            return maps[0] * factor, [F.avg_pool2d(maps[1], 2), maps[1].mean((2, 3))]

    module = run_dense(Several())

    def run(x: Any) -> Any:
        first, (second, third) = module([x, x + 1], factor=3)
        assert third.shape == (2, 4)
        return torch.cat([F.avg_pool2d(first, 2), second], 1)

    assert_equals_dense(run, image((16, 24)))


def test_a_dense_module_takes_keyword_arguments() -> None:
    class Named(nn.Module):
        def forward(self, x: Tensor, other: Tensor) -> Tensor:
            assert not isinstance(other, TileTensor)
            return x + F.adaptive_avg_pool2d(other, 3).sum((2, 3), keepdim=True)

    module = run_dense(Named())
    assert_equals_dense(lambda x: module(x, other=x), image())
    assert_equals_dense(lambda x: module(x=x, other=x), image())


def test_running_dense_twice_is_running_dense_once() -> None:
    module = run_dense(run_dense(Pyramid()))
    assert_equals_dense(module, image())


def test_a_map_that_is_no_whole_stride_cannot_come_back() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :, 1:]

    with pytest.raises(
        NoTileRule, match=r"map of \(12, 21\), which is no whole stride of the image of 13x21"
    ):
        run_dense(Odd())(split(image(), Plan.uniform(2, RAGGED, 8)))


# Refusals


def test_a_dense_module_can_be_copied() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.factor

    first = run_dense(Scale())
    second = copy.deepcopy(first)
    nn.init.constant_(second.factor, 3.0)
    x = split(image(), Plan.uniform(2, RAGGED, 8))
    torch.testing.assert_close(second(x).dense(), 3 * first(x).dense())
