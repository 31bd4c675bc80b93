"""Passes over fused and plain networks, to compare."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foveal.geometry.plan import Plan
from foveal.tiles import split

TILE = 16


def two_passes(network: nn.Module, image: Tensor, first: Plan, second: Plan) -> Tensor:
    """Answer of a pass over a changed image that keeps from another pass what it skips, and of that one."""
    before = network(split(image, first, remember=True))
    answer = before.dense()
    after = network(split(image.flip(1), second, before.memory()))
    return torch.cat([answer, after.dense()], 1)
