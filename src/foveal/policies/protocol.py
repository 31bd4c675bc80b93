"""All that a policy may look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from foveal.geometry.plan import Plan


@dataclass(frozen=True)
class View:
    """What is known about images before it is decided where to look closely.

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


Policy = Callable[[View], Plan]
"""Anything that looks at a view and says what to compute."""
