"""Policies decide where to look closely. `POLICIES` names them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from foveal.geometry.plan import check_budget
from foveal.policies.budgeted import Score, ScoredPolicy
from foveal.policies.controls import centre, chance, even
from foveal.policies.detail import detail
from foveal.policies.learned import Learned, PolicyNet
from foveal.policies.oracle import Benefit
from foveal.policies.protocol import Policy, View
from foveal.policies.uncertainty import entropy, margin, regional_entropy, weighted_entropy
from foveal.policies.uniform import RandomPlans, Uniform
from foveal.storage.names import find

__all__ = [
    "POLICIES",
    "Benefit",
    "Entry",
    "Learned",
    "Policy",
    "PolicyNet",
    "RandomPlans",
    "ScoredPolicy",
    "Uniform",
    "View",
    "create_policy",
]


@dataclass(frozen=True)
class Entry:
    """A policy of the table.

    Attributes:
        score: What it goes by; None for a policy that is made from something given.
        says: One line about it.
        looks: Whether it needs a coarse pass first.
        budget: A budget that it always has, whatever is asked for.
    """

    score: Score | None
    says: str
    looks: bool = False
    budget: float | None = None


Oracle = tuple[Callable[[Tensor], Tensor], Tensor]
"""A network, and the labels of the images that it will see."""

POLICIES: dict[str, Entry] = {
    "all": Entry(even, "everything at full resolution", budget=1.0),
    "none": Entry(even, "everything at the coarsest level", budget=0.0),
    "random": Entry(chance, "at random, a control"),
    "centre": Entry(centre, "around the centre, a control"),
    "detail": Entry(detail, "where reducing the image loses detail (SegBlocks 2020)"),
    "entropy": Entry(entropy, "where a coarse pass of the network is in doubt", looks=True),
    "margin": Entry(margin, "where its two best classes are close", looks=True),
    "weighted_entropy": Entry(weighted_entropy, "where it is in doubt about rare classes", looks=True),
    "regional_entropy": Entry(regional_entropy, "the same, where whole regions are in doubt", looks=True),
    "learned": Entry(None, "where a trained policy network says (SegBlocks 2022)"),
    "oracle": Entry(None, "where labels say that it pays; not a policy but a bound"),
}


def create_policy(
    name: str,
    budget: float = 0.4,
    tile: int = 32,
    coarsest: int = 2,
    look: int = 2,
    given: PolicyNet | Oracle | None = None,
) -> Policy:
    """Make a policy of the table.

    Args:
        name: Its name.
        budget: Share of the dense work, the decision included.
        tile: Side of a tile [px].
        coarsest: Level of the places that gain least.
        look: Level of the coarse pass, for policies that need one.
        given: Network and labels for the oracle; a policy network for the learned policy.

    Raises:
        ValueError: No policy of that name, nothing given to one that needs it, or a bad budget, tile or
            level.
    """
    entry = find(name, POLICIES, "policy")
    check_budget(budget)
    if tile < 1 or min(coarsest, look) < 0:
        raise ValueError(
            f"tile is {tile} px, coarsest {coarsest} and look {look}; give a tile of at least 1 px and "
            "levels of at least 0"
        )
    if entry.budget == 0:
        return Uniform(tile, coarsest)
    score = entry.score
    if name == "learned":
        if not isinstance(given, PolicyNet):
            raise ValueError(
                "the learned policy needs a trained policy network; give a model that was trained with one"
            )
        return Learned(given, tile, budget)
    if score is None:
        if not isinstance(given, tuple):
            raise ValueError("the oracle needs labels; use it in `foveal evaluate`")
        score = Benefit(*given, coarsest=coarsest)
    return ScoredPolicy(score, entry.budget or budget, tile, coarsest, look if entry.looks else None)
