"""Coarse to fine on small tiles: the method, the levels that its answers come from, and scored images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from foveal.methods import CoarseToFine, Prediction, Refinement
from foveal.policies import View

TILE = 8


def make(network: nn.Module, budget: float = 0.5, coarse_level: int = 1, **refinement: Any) -> CoarseToFine:
    """Make the method with settings of its refinement."""
    return CoarseToFine(network, budget, TILE, coarse_level, Refinement(**refinement)).eval()


def held(prediction: Prediction) -> Tensor:
    """Level [N, Gh, Gw] that the answer comes from."""
    plans = [step.plan for step in prediction.trace.steps]
    levels = plans[0].levels
    for plan in plans[1:]:
        levels = torch.where(plan.levels >= 0, plan.levels, levels)
    return levels


def brightness(view: View) -> Tensor:
    return view.image.mean(1)


def lit(*rates: float, cells: int = 8) -> Tensor:
    """Images whose cells differ in brightness, the brighter images by the rate."""
    steps = torch.linspace(0.1, 1.0, cells * cells).view(1, 1, cells, cells)
    plain = steps.repeat_interleave(TILE, 2).repeat_interleave(TILE, 3).expand(1, 3, -1, -1)
    return torch.cat([plain * rate for rate in rates])
