"""Time outside the network: the policy, and the tables of a plan."""

from __future__ import annotations

import torch
from torch import Tensor

from foveal.cost import alternate
from foveal.geometry.plan import Plan
from foveal.methods import AdaptiveSegmenter, SegBlocks
from foveal.tiles import split

ROUNDS = 15
"""Timed rounds of a decision."""


@torch.inference_mode()
def decision_ms(method: AdaptiveSegmenter, image: Tensor) -> float | None:
    """Time the policy, and the tables of a plan seen first [ms].

    The tables are those that the network asked for, built anew. None for a method that does not decide once
    before the network.
    """
    if not isinstance(method, SegBlocks):
        return None
    image = image.contiguous(memory_format=torch.channels_last)
    view, _ = method.view(image)
    known = method.policy(view)
    method.network(split(image, known)).dense()

    def tables() -> None:
        Plan(known.levels, known.tile, known.size).layout.rebuild_tables(known.layout)

    times = alternate({"policy": lambda: method.policy(view), "tables": tables}, ROUNDS)
    return times["policy"].median + times["tables"].median
