"""A model with its policy network as a method: by the paper's rule, or at an exact budget."""

from __future__ import annotations

import copy
from dataclasses import replace

from foveal.hub.checkpoint import Model
from foveal.methods import SegBlocks
from foveal.policies import Learned, PolicyNet
from studies.segblocks.study import work_of

RULES = ("probability", "budget")
"""Blocks above a probability of one half, as in the paper; or the most probable that the budget pays for."""


def learned_policy(model: Model, budget: float | None = None) -> Learned:
    """Return the policy of a model, deciding about blocks of 2x2 tiles.

    Args:
        model: A model with a policy.
        budget: Share of the dense work, met exactly; None for the paper's rule, a probability above one half.

    Raises:
        ValueError: The model has no policy.
    """
    net = model.part(PolicyNet)
    if net is None:
        raise ValueError(f"{model.name} has no policy network; give a model that was trained with one")
    return Learned(net, net.block // 2, budget)


def learned(model: Model, budget: float | None = None) -> SegBlocks:
    """Run a model on the blocks that its policy chooses; see `learned_policy`."""
    return SegBlocks(model.network, learned_policy(model, budget)).eval()


def budget_of(model: Model, target: float) -> float:
    """Return the budget that pays for the decision, and for blocks at full resolution as the target says."""
    net = model.part(PolicyNet)
    return min(1.0, work_of(target) + (net.share if net is not None else 0.0))


def free(model: Model) -> Model:
    """Return the model with a policy that costs nothing in a budget, to compare policies by their choice."""
    parts = copy.deepcopy(dict(model.parts))
    for net in parts.values():
        if isinstance(net, PolicyNet):
            net.share = 0.0
    return replace(model, parts=parts)
