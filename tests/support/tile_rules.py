"""Maps for the tests of the rules for tiles, and the comparison with the dense result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.geometry.plan import Plan
from foveal.tiles import TileTensor, split

Run = Callable[[Any], Any]

SIZES = [(16, 24), (13, 21), (9, 8), (1, 5)]
RAGGED = (13, 21)


def image(size: tuple[int, int] = RAGGED, images: int = 2, channels: int = 4) -> Tensor:
    return torch.randn(images, channels, *size, dtype=torch.float64)


def assert_equals_dense(run: Run, x: Tensor, tile: int = 8) -> None:
    """On tiles that are all at level 0 a function gives what it gives on the dense map."""
    expected = run(x)
    found = run(split(x, Plan.uniform(len(x), tuple(x.shape[2:]), tile)))
    assert found.shape == expected.shape
    found = found.dense() if isinstance(found, TileTensor) else found
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


class Pyramid(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        assert not isinstance(x, TileTensor)
        pooled = F.adaptive_avg_pool2d(x, (2, 3))
        return torch.cat([x, F.interpolate(pooled, size=x.shape[2:], mode="bilinear")], 1)
