"""Policies decide where to compute at full resolution. `POLICIES` names them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from foveal.geometry.plan import check_budget
from foveal.policies.answers import AnswerGate
from foveal.policies.budgeted import Score, ScoredPolicy
from foveal.policies.controls import centre, chance, even
from foveal.policies.detail import detail
from foveal.policies.learned import Learned, PolicyNet
from foveal.policies.oracle import Benefit
from foveal.policies.protocol import FunctionPolicy, Policy, View, as_policy
from foveal.policies.uncertainty import entropy, logit_margin, margin, regional_entropy, weighted_entropy
from foveal.policies.uniform import RandomPlans, Uniform
from foveal.storage.given import need
from foveal.storage.names import find

__all__ = [
    "POLICIES",
    "AnswerGate",
    "Benefit",
    "Entry",
    "FunctionPolicy",
    "Learned",
    "Policy",
    "PolicyNet",
    "RandomPlans",
    "ScoredPolicy",
    "Uniform",
    "View",
    "as_policy",
    "create_policy",
]


@dataclass(frozen=True)
class Entry:
    """A policy of the table.

    Attributes:
        score: What it goes by; None for a policy that is made from something given.
        description: One line about it.
        needs_pass: Whether it needs the logits of a coarse pass.
        budget: A budget that it always has, whatever is asked for.
    """

    score: Score | None
    description: str
    needs_pass: bool = False
    budget: float | None = None


Oracle = tuple[Callable[[Tensor], Tensor], Tensor]
"""A network, and the labels of the images that it will see."""

POLICIES: dict[str, Entry] = {
    "all": Entry(even, "everything at full resolution", budget=1.0),
    "none": Entry(even, "everything at the coarsest level", budget=0.0),
    "random": Entry(chance, "at random, a control"),
    "centre": Entry(centre, "around the centre, a control"),
    "detail": Entry(detail, "where reducing the image loses detail (SegBlocks 2020)"),
    "entropy": Entry(entropy, "where a coarse pass of the network is uncertain", needs_pass=True),
    "margin": Entry(margin, "where its two best classes are close", needs_pass=True),
    "logit_margin": Entry(
        logit_margin, "the same by their logits, however likely others are (PointRend 2020)", needs_pass=True
    ),
    "weighted_entropy": Entry(weighted_entropy, "where it is uncertain about rare classes", needs_pass=True),
    "regional_entropy": Entry(
        regional_entropy, "the same, where whole regions are uncertain", needs_pass=True
    ),
    "learned": Entry(None, "where a trained policy network says (SegBlocks 2022)"),
    "oracle": Entry(None, "where labels say that it pays; not a policy but a bound"),
}


def create_policy(
    name: str,
    budget: float = 0.4,
    tile: int = 32,
    max_level: int = 2,
    coarse_level: int = 2,
    given: PolicyNet | Oracle | None = None,
) -> Policy:
    """Make a policy of the table.

    Args:
        name: Its name.
        budget: Share of the dense work, the decision included.
        tile: Side of a tile [px].
        max_level: Level of the places that gain least.
        coarse_level: Level of the coarse pass, for policies that need one.
        given: Network and labels for the oracle; a policy network for the learned policy.

    Raises:
        ValueError: No policy of that name, nothing given to one that needs it, or a bad budget, tile or
            level.
    """
    entry = find(name, POLICIES, "policy")
    check_budget(budget)
    for number, called in ((tile, "tile"), (max_level, "max_level"), (coarse_level, "coarse_level")):
        need(number, int, called, "a whole number")
    if tile < 1 or min(max_level, coarse_level) < 0:
        raise ValueError(
            f"tile is {tile} px, max_level {max_level} and coarse_level {coarse_level}; give a tile of at "
            "least 1 px and levels of at least 0"
        )
    if entry.budget == 0:
        return Uniform(tile, max_level)
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
        score = Benefit(*given, max_level=max_level)
    return ScoredPolicy(
        score, entry.budget or budget, tile, max_level, coarse_level if entry.needs_pass else None
    )
