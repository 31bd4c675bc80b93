"""A method whose budget is chosen before every frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import floor, log

from torch import Tensor

from foveal.inference.video.pace import BUSY, Pace, least
from foveal.methods import AdaptiveSegmenter, Prediction
from foveal.tiles.memory import Memory

RUNG = 1.05
"""A budget and the one below it: so many times as much."""
KEPT = 24
"""Methods that are kept, one for every budget that was used last."""

Make = Callable[[float], AdaptiveSegmenter]
"""Makes the method for a budget."""


class Paced:
    """Gives every frame what all paces allow, by the method that has this budget.

    Budgets are steps of a ladder, so that few methods are made; what is allowed is rounded downwards. What
    passes from frame to frame is the memory alone, which does not depend on the budget.

    Args:
        make: Makes the method.
        paces: What says how much a frame may take; the least counts.
        most: Share of the dense work that a frame may take at most.
        remembers: Whether a frame may cost nothing, as it is with a memory; else every frame gets at least
            the cheapest plan.
    """

    def __init__(
        self, make: Make, paces: Sequence[Pace] = (), most: float = 1.0, remembers: bool = True
    ) -> None:
        self._make, self.paces, self.most, self.remembers = make, tuple(paces), most, remembers
        self._made: dict[float, AdaptiveSegmenter] = {}
        self.method(most)

    def __call__(self, image: Tensor, memory: Memory | None = None) -> Prediction:
        """Segment the next frame [1, 3, H, W].

        Raises:
            ValueError: As of the method.
        """
        found: Prediction = self.next((image.shape[2], image.shape[3]))(image, memory)
        return found

    def next(self, size: tuple[int, int]) -> AdaptiveSegmenter:
        """Return the method for the next frame, of `size` [px]."""
        share = least(self.paces, self.most)
        method = self.method(rung(share, self.most))
        if self.remembers or not self.paces:
            return method
        cheapest = method.least_work(size)
        return method if cheapest <= share else self.method(min(self.most, cheapest))

    def took(self, work: float, ms: float) -> None:
        """Say what the frame took."""
        for pace in self.paces:
            pace.took(work, ms)

    def method(self, budget: float) -> AdaptiveSegmenter:
        """Return the method for a budget."""
        method = self._made.pop(budget, None) or self._make(budget)
        self._made[budget] = method  # the last one that was used
        if len(self._made) > KEPT:
            del self._made[next(iter(self._made))]
        return method


def rung(share: float, most: float) -> float:
    """Return the largest budget of the ladder that a share pays for; the ladder hangs at the top."""
    if share >= most:
        return most
    steps = -floor(log(max(share, BUSY) / most) / log(RUNG) + 1e-9)
    return min(most, max(BUSY, round(most * RUNG**-steps, 6)))
