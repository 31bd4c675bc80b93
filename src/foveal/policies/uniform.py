"""One level for everything, and random plans to train on."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch

from foveal.geometry.plan import Plan, grid
from foveal.policies.budgeted import per_cell
from foveal.policies.protocol import View
from foveal.policies.uncertainty import entropy


@dataclass(frozen=True)
class Uniform:
    """Puts everything at one level.

    Attributes:
        tile: Side of a tile [px].
        level: 0 full resolution, 1 half, ...
    """

    tile: int = 32
    level: int = 0
    budget: ClassVar[None] = None
    coarse_level: ClassVar[None] = None

    def cost(self, size: tuple[int, int]) -> float:
        """Return 0: nothing is decided."""
        return 0.0

    def least_work(self, size: tuple[int, int]) -> float:
        """Return the work of the plan for an image of `size` [px]."""
        return float(Plan.uniform(1, size, self.tile, self.level).work)

    def __call__(self, view: View) -> Plan:
        """Give every image the same level."""
        return Plan.uniform(len(view.image), view.size, self.tile, self.level)


@dataclass(frozen=True)
class RandomPlans:
    """Draws another plan every time, for training on mixed resolutions.

    The scores of a plan are a random blend of noise and, if logits are given, of their entropy: plans such
    as a policy of uncertainty would make, and plans that no policy would.

    Attributes:
        tiles: Sides of a tile to draw from [px].
        max_level: Coarsest level that may occur; every plan draws its own, from 1 on.
        budgets: Smallest and largest budget; one above 1 stands for full resolution, one below the cheapest
            plan for that plan.
    """

    tiles: tuple[int, ...] = (32, 48, 64)
    max_level: int = 2
    budgets: tuple[float, float] = (0.2, 0.8)
    budget: ClassVar[None] = None
    coarse_level: ClassVar[None] = None

    def cost(self, size: tuple[int, int]) -> float:
        """Return 0."""
        return 0.0

    def least_work(self, size: tuple[int, int]) -> float:
        """Return 0: plans are drawn for training, and no budget is kept."""
        return 0.0

    def __call__(self, view: View) -> Plan:
        """Plan with a random tile, number of levels, budget and score."""
        max_level = 1 + int(torch.randint(self.max_level, ())) if self.max_level else 0
        tile = self.tiles[int(torch.randint(len(self.tiles), ()))]
        rows, columns = grid(view.size, tile)
        low, high = self.budgets
        cheapest = prod(-(-cells >> max_level) for cells in (rows, columns)) * tile**2 / prod(view.size)
        budget = max(low + (high - low) * float(torch.rand(())), cheapest)
        if budget >= 1:
            return Plan.uniform(len(view.image), view.size, tile)
        scores = torch.rand(len(view.image), rows, columns)
        if view.logits is not None:
            uncertainty = per_cell(entropy(view), view.size, tile).cpu()
            scores = uncertainty + scores * uncertainty.mean() * float(torch.rand(())) * 4
        return Plan.from_scores(scores, tile, view.size, budget, max_level)
