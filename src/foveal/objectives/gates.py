"""What trains gates to open within a budget: relaxed gates, and how far what they spend is from it.

Source: Verelst and Tuytelaars, "Dynamic Convolutions", CVPR 2020, sections 3.2 and 3.3; Jang et al.,
"Categorical Reparameterization with Gumbel-Softmax", ICLR 2017.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TINY = 1e-8
"""Keeps logarithms finite."""


def straight_through(logits: Tensor, temperature: float, noisy: bool, side: int = 1) -> Tensor:
    """Open gates: 0 or 1 forwards, with the gradient of a sigmoid.

    Args:
        logits: [N, h, w]; above 0 a gate is open.
        temperature: Of the sigmoid.
        noisy: Whether noise is added, the difference of two Gumbel numbers.
        side: Positions on the side of a square that shares its noise.

    Returns:
        [N, h, w].
    """
    if noisy:
        shape = len(logits), -(-logits.shape[1] // side), -(-logits.shape[2] // side)
        one, two = (-(-(torch.rand(shape, device=logits.device) + TINY).log() + TINY).log() for _ in range(2))
        drawn = (one - two).repeat_interleave(side, 1).repeat_interleave(side, 2)
        logits = logits + drawn[:, : logits.shape[1], : logits.shape[2]]
    soft = (logits / temperature).sigmoid()
    hard = (soft >= 0.5).to(soft)
    return hard + (soft - soft.detach())


@dataclass(frozen=True)
class GateBudget:
    """How far the work of gated units is from a target.

    At first every unit is held to the target by itself, so that none stays open or closed for good; the
    bounds open to 0 and 1 over the first part of the training, and what remains is the target of all.

    Attributes:
        target: Share of the work of all units.
        narrow: Share of the training over which the bounds open.
    """

    target: float
    narrow: float = 0.33

    def __call__(self, spent: Tensor, weights: Sequence[float], progress: float) -> Tensor:
        """Return the squared distance of all from the target, plus the mean one of units from their bounds.

        Args:
            spent: Share of its work that every unit spends [units].
            weights: Work of the units.
            progress: Share of the training that is done.
        """
        low, high = self.bounds(progress)
        weight = torch.tensor(weights, dtype=spent.dtype, device=spent.device)
        whole = ((spent * weight).sum() / weight.sum() - self.target).square()
        beyond = (spent - high).relu().square() + (low - spent).relu().square()
        return whole + beyond.mean()

    def bounds(self, progress: float) -> tuple[float, float]:
        """Return the least and the largest share that a unit may spend for nothing."""
        done = 1.0 if self.narrow == 0 else min(progress / self.narrow, 1.0)
        held = math.cos(math.pi / 2 * done) ** 2
        return held * self.target, 1 - held * (1 - self.target)
