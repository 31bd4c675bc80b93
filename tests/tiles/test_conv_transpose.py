"""Transposed convolutions: both laws, and exactly the work of the dense network."""

from __future__ import annotations

from random import Random

import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.nn import functional as F

from both_laws import assert_both_laws, assert_runs_on_mixed_plans, random_map
from foveal.cost import count_macs
from foveal.geometry.plan import Plan
from foveal.tiles import split
from strategies import sources


def random_transposed(source: Random) -> nn.ConvTranspose2d:
    """Any transposed convolution that grows the map by its stride."""
    while True:
        stride, dilation = source.choice([1, 2, 3, 4]), source.choice([1, 1, 2, 3])
        kernel, padding = source.randint(1, 8), source.randint(0, 5)
        extra = stride - dilation * (kernel - 1) - 1 + 2 * padding
        if 0 <= extra < max(stride, dilation):
            break
    groups = source.choice([1, 2, 4])
    return nn.ConvTranspose2d(4, 8, kernel, stride, padding, extra, groups, source.random() < 0.5, dilation)


@torch.no_grad()
@settings(max_examples=60)
@given(source=sources())
def test_transposed_convolutions(source: Random) -> None:
    layer = random_transposed(source).double()
    stride = layer.stride[0]
    size = 12 * source.randint(1, 3) * 4, 12 * source.randint(1, 3) * 4

    def run(x: object) -> object:
        return layer(F.avg_pool2d(x, stride))

    assert_both_laws(run, random_map(size), 12, (0, 1, 2))
    assert_runs_on_mixed_plans(run, random_map(size), source, 12, 1)


@torch.no_grad()
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "extra"),
    [(4, 2, 1, 0), (2, 2, 0, 0), (3, 2, 1, 1), (8, 4, 2, 0), (4, 4, 0, 0)],
)
@pytest.mark.parametrize("groups", [1, 4])
def test_everything_at_level_0_takes_the_macs_of_the_dense_network(
    groups: int, kernel: int, stride: int, padding: int, extra: int
) -> None:
    """It took up to 2.5 times as many: small tiles were spread together with their borders."""
    layer = nn.ConvTranspose2d(4, 8, kernel, stride, padding, extra, groups)
    x = torch.randn(1, 4, 64, 96)
    small = F.avg_pool2d(x, 16)
    tiles = F.avg_pool2d(split(x, Plan.uniform(1, (64, 96), 32)), 16)
    assert tiles.side == 2
    assert count_macs(lambda: layer(tiles)).total == count_macs(lambda: layer(small)).total


def test_gradients_reach_its_weights() -> None:
    layer, x = nn.ConvTranspose2d(4, 4, 4, 2, 1).double(), random_map((16, 24))
    found, expected = (
        torch.autograd.grad((y * y).sum(), layer.weight)[0]
        for y in (
            layer(F.avg_pool2d(split(x, Plan.uniform(2, (16, 24), 8)), 2)).dense(),
            layer(F.avg_pool2d(x, 2)),
        )
    )
    torch.testing.assert_close(found, expected)
