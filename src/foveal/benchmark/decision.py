"""Time outside the network: the policy, and the tables of a plan."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from foveal.cost import alternate
from foveal.geometry.plan import Plan
from foveal.methods import AdaptiveSegmenter, CompiledMethod, SegBlocks
from foveal.methods.padding import PaddedMethod, unpadded
from foveal.methods.scaling import ScaledMethod
from foveal.tiles import split

ROUNDS = 15
"""Timed rounds of a decision."""


@torch.inference_mode()
def decision_ms(method: AdaptiveSegmenter, image: Tensor) -> float | None:
    """Time the policy and, of a method that runs as modules, the tables of a plan seen first [ms].

    The tables are those that the network asked for, built anew; a program builds them between its steps. None
    for a method that does not decide once before the network.
    """
    if isinstance(method, ScaledMethod):
        small = method.sent(image)
        return decision_ms(method.within((image.shape[2], image.shape[3])), small)
    image = method.sent(image) if isinstance(method, PaddedMethod) else image
    method, image = unpadded(method), image.contiguous(memory_format=torch.channels_last)
    planner = method.method if isinstance(method, CompiledMethod) else method
    if not isinstance(planner, SegBlocks):
        return None
    if isinstance(method, CompiledMethod) and method.settings is not None:
        return statistics.median(method.step_ms(image)["decide"] for _ in range(ROUNDS))
    view, _ = planner.view(image)
    runs: dict[str, Callable[[], object]] = {"policy": lambda: planner.policy(view)}
    if planner is method:
        known = planner.policy(view)
        planner.network(split(image, known)).dense()
        runs["tables"] = lambda: Plan(known.levels, known.tile, known.size).layout.rebuild_tables(
            known.layout
        )
    return sum(timing.median for timing in alternate(runs, ROUNDS).values())
