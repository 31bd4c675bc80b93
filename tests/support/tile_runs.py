"""Random networks, images and plans, and their runs on tiles, for the laws of the tile engine."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from foveal.geometry.plan import SKIP, Plan
from foveal.ops import halve
from foveal.tiles import Memory, TileTensor, split
from networks import RandomNetwork
from strategies import random_plan, random_size

TILE = 16
EXACT = 1e-10
"""Tolerance in double precision, as a share of the largest magnitude."""


def network_and_image(source: Random, context: bool = True) -> tuple[RandomNetwork, Tensor]:
    """Draw a network and one to three images of any size, in double precision."""
    torch.manual_seed(source.randint(0, 2**30))
    size = random_size(source, TILE, 4)
    image = torch.randn(source.randint(1, 3), 3, *size, dtype=torch.float64)
    return RandomNetwork(source, context).double(), image


def size_of(image: Tensor) -> tuple[int, int]:
    """Return height and width [px]."""
    return image.shape[2], image.shape[3]


def a_plan(source: Random, image: Tensor, skip: float = 0.0) -> Plan:
    """Draw a quadtree of up to three levels for images, and skip a share of the tiles."""
    return random_plan(source, len(image), size_of(image), TILE, source.randint(0, 2), skip)


def some_skipped(source: Random, plan: Plan, share: float) -> Plan:
    """Skip a share of the tiles of a plan, and keep the others as they are."""
    levels = plan.levels.clone()
    skipped = [b for b in range(len(plan.layout)) if source.random() < share]
    levels[torch.isin(plan.layout.owner, torch.tensor(skipped))] = SKIP
    return Plan(levels, plan.tile, plan.size)


def everything(image: Tensor, level: int = 0) -> Plan:
    """Plan all tiles at one level; none of them at `SKIP`."""
    return Plan.uniform(len(image), size_of(image), TILE, level)


def reduced(image: Tensor, level: int) -> Tensor:
    """Halve images as often as the level says."""
    for _ in range(level):
        image = halve(image)
    return image


def conv_macs(run: Callable[[], Any]) -> int:
    """Count the multiply-accumulates of convolutions and matrix products with PyTorch's own counter [MAC]."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops() // 2


def remembered(network: nn.Module, image: Tensor, plan: Plan, memory: Memory | None = None) -> TileTensor:
    """Run with memory, and compose, so that the answer is remembered too."""
    out = network(split(image, plan, memory, remember=True))
    out.dense()
    return out


def run_with_memory(
    network: nn.Module, image: Tensor, plan: Plan, memory: Memory | None
) -> tuple[Tensor, Memory]:
    """Return the dense answer of a pass over tiles, and the memory that it leaves."""
    out = network(split(image, plan, memory, remember=True))
    dense = out.dense()
    after = out.memory()
    assert after is not None
    return dense, after
