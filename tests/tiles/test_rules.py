"""What holds for a TileTensor and for all rules: shapes, no tiles at all, gradients, rounding."""

from __future__ import annotations

import math
import warnings

import torch
from torch import nn
from torch.nn import functional as F

from foveal.geometry.plan import SKIP, Plan
from foveal.tiles import run_dense, split
from tile_rules import RAGGED, Pyramid, image


def test_a_tile_tensor_looks_like_the_map_it_stands_for() -> None:
    x = split(image(), Plan.uniform(2, RAGGED, 8))
    assert x.shape == (2, 4, 13, 21)
    assert (x.size(2), x.ndim, x.dtype, x.device.type) == (13, 4, torch.float64, "cpu")
    half = F.max_pool2d(x, 3, 2, 1)
    assert (half.shape, half.stride, half.side) == ((2, 4, 7, 11), 2, 4)
    assert F.pad(x, (1, 2, 3, 4)).shape == (2, 4, 20, 24)


def test_every_rule_copes_with_no_tile_at_all() -> None:
    x = split(image((16, 24)), Plan.uniform(2, (16, 24), 8, SKIP))
    layers = [
        nn.Conv2d(4, 4, 3, 2, 1),
        nn.BatchNorm2d(4).eval(),
        nn.MaxPool2d(3, 1, 1),
        nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        nn.ConvTranspose2d(4, 4, 2, 2),
        nn.Conv2d(4, 16, 3, 2, 1),
        nn.PixelShuffle(2),
        nn.MaxPool2d(2),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Softmax(1),
        run_dense(Pyramid()),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = nn.Sequential(*layers).double()(x)
    assert out.tiles.shape[0] == 0
    assert torch.equal(out.mean((2, 3)), torch.zeros(2, 8, dtype=torch.float64))


def test_gradients_of_a_ragged_image_stay_finite_through_max_pooling() -> None:
    layers = [nn.MaxPool2d(3, 2, 1)]
    for _ in range(3):
        layers += [nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU()]
    network = nn.Sequential(*layers).eval()
    for norm in network:
        if isinstance(norm, nn.Conv2d):
            nn.init.constant_(norm.weight, 2.0)
    x = split(torch.randn(1, 4, 9, 9), Plan.uniform(1, (9, 9), 8))
    network(x).dense().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_the_error_is_no_more_than_rounding_in_single_precision() -> None:
    layer = nn.Conv2d(4, 8, 7, padding=3)
    x = torch.randn(1, 4, 29, 31)
    found = layer(split(x, Plan.uniform(1, (29, 31), 8))).dense().double()
    single = layer(x).double()
    exact = layer.double()(x.double())
    unavoidable = (single - exact).abs().max().item()
    assert (found - exact).abs().max().item() <= 4 * unavoidable + math.ulp(1.0)
