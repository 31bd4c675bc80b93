"""Comparison of encoders."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def maps(encoder: nn.Module, image: Tensor) -> list[Tensor]:
    return encoder(image)


def assert_same_function(
    one: nn.Module, other: nn.Module, tolerance: float = 1e-4, size: tuple[int, int] = (48, 64)
) -> None:
    image = torch.randn(1, 3, *size)
    for found, expected in zip(maps(one, image), maps(other, image), strict=True):
        scale = expected.abs().max().item()
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * scale)
