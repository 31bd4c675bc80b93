"""Losses of images as an adaptive network may have them, drawn from known distributions."""

from __future__ import annotations

import torch
from torch import Tensor

SETTINGS = 60
THRESHOLDS = tuple(torch.linspace(0, 1, SETTINGS).tolist())


def measured(images: int, seed: int = 0, noise: float = 0.0) -> tuple[Tensor, Tensor]:
    """Losses and works [n, L] of images that are easy or hard; with noise, losses do not only grow."""
    draw = torch.Generator().manual_seed(seed)
    hardness = torch.rand(images, 1, generator=draw, dtype=torch.float64)
    steps = torch.linspace(0, 1, SETTINGS, dtype=torch.float64)
    losses = hardness**2 * steps + noise * torch.rand(images, SETTINGS, generator=draw, dtype=torch.float64)
    losses[:, 0] = 0
    return losses.clamp(max=1), 1 - steps * (1 - 0.5 * hardness)
