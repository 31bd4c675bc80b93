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
    maps = []
    for image in view.image:
        content = int((image * 255).round().long().sum())
        generator = Generator().manual_seed(seed * 1_000_003 + content)
        maps.append(torch.rand(_shape(view)[1:], generator=generator))
    return torch.stack(maps).to(view.image.device)


def centre(view: View) -> Tensor:
    """Score by nearness to the centre, in units of the image's sides."""
    _, rows, columns = _shape(view)
    y, x = (((torch.arange(n) + 0.5) / n - 0.5).square() for n in (rows, columns))
    return (1 - y[:, None] - x[None]).expand(len(view.image), -1, -1).to(view.image.device)


def _shape(view: View) -> tuple[int, int, int]:
    height, width = view.size
    return len(view.image), -(-height // PATCH), -(-width // PATCH)
