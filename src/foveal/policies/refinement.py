"""Which tiles to refine, and how the finer answer is used."""

from __future__ import annotations

import math
from dataclasses import dataclass

from foveal.policies.budgeted import Score
from foveal.policies.uncertainty import weighted_entropy


@dataclass(frozen=True)
class Refinement:
    """How refined tiles are chosen and used; calibration measures it for a network.

    Attributes:
        score: Says from a view with logits how much is gained where [per pixel].
        level_gain: What a step to level 0, 1, ... gains, as a share of the score; the last stands for all
            after.
        logit_blend: Share of the coarser answer in the answer of a refined place, in logits.
        threshold: Gain per tile from which a tile is refined, within the budget; None for as many as the
            budget pays for.
        shared: Whether one budget serves all images of a batch, so that hard ones get more.

    Raises:
        ValueError: A number is none that can be used.
    """

    score: Score = weighted_entropy
    level_gain: tuple[float, ...] = (0.5, 1.0)
    logit_blend: float = 0.0
    threshold: float | None = None
    shared: bool = False

    def __post_init__(self) -> None:
        if not self.level_gain or not all(0 <= gain < math.inf for gain in self.level_gain):
            raise ValueError(
                f"level_gain is {self.level_gain}; give a finite share of at least 0 for every step"
            )
        if not 0 <= self.logit_blend <= 1 or math.isnan(self.threshold or 0.0):
            raise ValueError(
                f"logit_blend is {self.logit_blend:g} and threshold {self.threshold}; give a share and a gain"
            )

    def gain_of(self, level: int) -> float:
        """Return what a step to a level gains, as a share of the score."""
        return self.level_gain[min(level, len(self.level_gain) - 1)]
