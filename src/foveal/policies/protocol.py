"""Interface of policies, and the information that they are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from foveal.geometry.plan import Plan


@dataclass(frozen=True)
class View:
    """Information about images that a policy decides from.

    Attributes:
        image: [N, 3, H, W] in 0..1.
        logits: Answer of a coarse pass or an earlier exit [N, K, h, w].
        features: Features of one [N, C, h, w].
        previous: The last frame [N, 3, H, W].
        spent: Work already done to get these, as a share of the dense work; it counts against the budget.
    """

    image: Tensor
    logits: Tensor | None = None
    features: Tensor | None = None
    previous: Tensor | None = None
    spent: float = 0.0

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images [px]."""
        return self.image.shape[2], self.image.shape[3]


@runtime_checkable
class Policy(Protocol):
    """Maps a view to a plan."""

    @property
    def budget(self) -> float | None:
        """Share of the dense work that plans keep; None if the policy has none to keep."""

    @property
    def coarse_level(self) -> int | None:
        """Level of a pass over the whole image whose logits the policy needs; None if it needs none."""

    def cost(self, size: tuple[int, int]) -> float:
        """Return the work of the decision itself on an image of `size` [px], a coarse pass not included."""

    def least_work(self, size: tuple[int, int]) -> float:
        """Return the work of the cheapest plan for an image of `size` [px], the decision included."""

    def __call__(self, view: View) -> Plan:
        """Plan every image by itself."""


@dataclass(frozen=True)
class FunctionPolicy:
    """A policy that is an ordinary function; its cost is not known and counts as nothing.

    Attributes:
        function: From a view to a plan.
    """

    function: Callable[[View], Plan]
    budget: float | None = None
    coarse_level: int | None = None

    def cost(self, size: tuple[int, int]) -> float:
        """Return 0."""
        return 0.0

    def least_work(self, size: tuple[int, int]) -> float:
        """Return 0: what a function may plan is not known."""
        return 0.0

    def __call__(self, view: View) -> Plan:
        """Call the function."""
        return self.function(view)


def as_policy(policy: Policy | Callable[[View], Plan]) -> Policy:
    """Return a policy as it is, and an ordinary function as a policy."""
    return policy if isinstance(policy, Policy) else FunctionPolicy(policy)
