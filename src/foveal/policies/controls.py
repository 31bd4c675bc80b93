"""Scores that ignore the image: everywhere the same, at random, around the centre."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from foveal.policies.protocol import View

PATCH = 16
"""Side of a place that has one score [px]."""


def even(view: View) -> Tensor:
    """Score every place equally: refinement starts at the top left, a control for everything else."""
    return torch.ones(_shape(view), device=view.image.device)


def chance(view: View, seed: int = 0) -> Tensor:
    """Score at random, but always the same for the same image."""
    maps = [noise(image, _shape(view)[1:], seed) for image in view.image]
    return torch.stack(maps).to(view.image.device)


def noise(image: Tensor, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Draw numbers in 0..1 of a shape, always the same for the same image [C, H, W]; they are on the CPU."""
    content = int((image * 255).round().long().sum())
    return torch.rand(shape, generator=Generator().manual_seed(seed * 1_000_003 + content))


def centre(view: View) -> Tensor:
    """Score by nearness to the centre, in units of the image's sides."""
    _, rows, columns = _shape(view)
    y, x = (((torch.arange(n) + 0.5) / n - 0.5).square() for n in (rows, columns))
    return (1 - y[:, None] - x[None]).expand(len(view.image), -1, -1).to(view.image.device)


def _shape(view: View) -> tuple[int, int, int]:
    height, width = view.size
    return len(view.image), -(-height // PATCH), -(-width // PATCH)
