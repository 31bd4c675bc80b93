"""Which tiles to refine, and how the finer answer is used."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from foveal.geometry import planner
from foveal.geometry.squares import sum_squares
from foveal.ops import choose_tiles
from foveal.policies.budgeted import Score
from foveal.policies.uncertainty import weighted_entropy
from foveal.storage.labels import MASK_BORDERS
from foveal.storage.names import find

NOT_OPEN = -1.0
"""Gain of a tile that cannot be refined now: below that of any that can."""

SCHEDULES = ("levels", "direct")

Forest = tuple[list[Tensor], list[Tensor]]
"""Gain [per cell] and cost [tiles] of the tiles of every level, coarsest first."""


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
        schedule: "levels" refines one level after the other, "direct" goes to full resolution at once.
        isolated_gain: Share of its gain that a tile has if none of its neighbours is refined; at 1 neighbours
            do not matter, below refined tiles are compact (`geometry/compact.py`).
        mask_border: What places at the edge of a mask border on: "edge", what lies beyond an image's edge, or
            "coarse", a first pass that goes one cell beyond the mask.

    Raises:
        ValueError: A number is none that can be used.
    """

    score: Score = weighted_entropy
    level_gain: tuple[float, ...] = (0.5, 1.0)
    logit_blend: float = 0.0
    threshold: float | None = None
    shared: bool = False
    schedule: str = "levels"
    isolated_gain: float = 1.0
    mask_border: str = "edge"

    def __post_init__(self) -> None:
        if not self.level_gain or not all(0 <= gain < math.inf for gain in self.level_gain):
            raise ValueError(
                f"level_gain is {self.level_gain}; give a finite share of at least 0 for every step"
            )
        if not 0 <= self.isolated_gain <= 1:
            raise ValueError(f"isolated_gain is {self.isolated_gain:g}; give a share between 0 and 1")
        if not 0 <= self.logit_blend <= 1 or math.isnan(self.threshold or 0.0):
            raise ValueError(
                f"logit_blend is {self.logit_blend:g} and threshold {self.threshold}; give a share and a gain"
            )
        find(self.mask_border, dict.fromkeys(MASK_BORDERS), "mask_border")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule is {self.schedule!r}; give one of {', '.join(SCHEDULES)}")

    def steps(self, coarse_level: int) -> range:
        """Return the levels of the passes after a first one at a level."""
        last = min(1, coarse_level) if self.schedule == "direct" else coarse_level
        return range(last - 1, -1, -1)

    def around(self, wanted: Tensor | None) -> Tensor | None:
        """Return the cells that are not wanted, and border those that are [N, Gh, Gw]; None without any."""
        if wanted is None or self.mask_border == "edge":
            return None
        near = functional.max_pool2d(wanted[:, None].float(), 3, 1, 1)[:, 0] > 0
        around = near & ~wanted
        return around if bool(around.any()) else None

    def reached(self, wanted: Tensor | None) -> Tensor | None:
        """Return the cells that a first pass computes [N, Gh, Gw]; all if None."""
        around = self.around(wanted)
        return wanted if around is None or wanted is None else wanted | around

    def gain_of(self, level: int) -> float:
        """Return what a step to a level gains, as a share of the score."""
        return self.level_gain[min(level, len(self.level_gain) - 1)]

    def forest(self, maps: list[Tensor], held: Tensor, level: int) -> Forest:
        """Say for every tile of a level and finer what it gains and costs.

        Args:
            maps: Gain per cell [Gh, Gw] of a step to level 0, 1, ...; the last stands for all after.
            held: Level that every cell has [Gh, Gw]; open are those one level coarser than `level`, or all
                coarser ones in a direct step.
            level: Coarsest level of the tiles.
        """
        is_open = (held > level if self.schedule == "direct" else held == level + 1).double()
        gains, costs = [], []
        for k in range(level, -1, -1):
            cells = maps[min(k, len(maps) - 1)].double().clamp(min=0) * self.gain_of(k)
            room = sum_squares(is_open, 2**k) > 0
            gains.append(torch.where(room, sum_squares(cells * is_open, 2**k), NOT_OPEN))
            costs.append(room.double())
        return gains, costs

    def choose(self, forests: list[Forest], left: list[float]) -> list[Tensor]:
        """Say which tiles of the first map of every forest are chosen.

        How many is decided by their rates; which, in the last step, by how compact the choice is too. Before
        it a choice that is spread out does better: the next answer is the better judge, wherever it reaches.

        Args:
            forests: One an image.
            left: Tiles that are paid for, per image.
        """
        rates, costs = [planner.rates(*forest) for forest in forests], [forest[1] for forest in forests]
        if self.shared:
            chosen = planner.choose_shared(rates, costs, sum(left))
        else:
            chosen = [planner.choose(r, c, b) for r, c, b in zip(rates, costs, left, strict=True)]
        first = [mask[0] & (cost[0] > 0) for mask, cost in zip(chosen, costs, strict=True)]
        if (threshold := self.threshold) is not None:
            first = [mask & (rate[0] >= threshold) for mask, rate in zip(first, rates, strict=True)]
        if self.isolated_gain == 1 or any(len(gains) > 1 for gains, _ in forests):
            return first
        return [
            choose_tiles(rate[0], cost[0] > 0, self.isolated_gain, int(mask.sum()))
            for mask, rate, cost in zip(first, rates, costs, strict=True)
        ]
