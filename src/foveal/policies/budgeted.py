"""Policies that score every place, and spend the budget where the score is highest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import gcd, prod

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.geometry.plan import Plan, check_budget, grid
from foveal.policies.protocol import View

Score = Callable[[View], Tensor | tuple[Tensor, ...]]
"""Gain per pixel [N, h, w] of refining, at any stride; or one map for every step, finest first.

Steps beyond the last map go by the last map.
"""


@dataclass(frozen=True)
class ScoredPolicy:
    """Refines where a score is highest, until the budget is spent.

    Attributes:
        score: Says what is gained where.
        budget: Share of the dense work, whatever the decision itself costs included.
        tile: Side of a tile [px].
        max_level: Level of the places that gain least.
        coarse_level: Level of a pass over the whole image whose logits the score needs; None for none.

    Raises:
        ValueError: The budget is no share, or does not pay for the cheapest plan.
    """

    score: Score
    budget: float = 0.4
    tile: int = 32
    max_level: int = 2
    coarse_level: int | None = None

    def __post_init__(self) -> None:
        check_budget(self.budget)

    def cost(self, size: tuple[int, int]) -> float:
        """Return 0: a score costs next to nothing."""
        return 0.0

    def least_work(self, size: tuple[int, int]) -> float:
        """Return the work of the cheapest plan for an image of `size` [px], the coarse pass included."""
        if self.budget >= 1:
            return float(Plan.uniform(1, size, self.tile).work)
        level = self.coarse_level
        coarse = 0.0 if level is None else prod(-(-side // 2**level) for side in size) / prod(size)
        return coarse + float(Plan.uniform(1, size, self.tile, self.max_level).work)

    def __call__(self, view: View) -> Plan:
        """Plan within the budget, every image by itself."""
        if self.budget >= 1:
            return Plan.uniform(len(view.image), view.size, self.tile)
        if view.spent >= self.budget:
            raise ValueError(
                f"budget is {self.budget:g} and the coarse pass alone takes {view.spent:.3g} of the dense "
                "work; raise the budget, or give a higher coarse level"
            )
        maps = self.score(view)
        maps = maps if isinstance(maps, tuple) else (maps,)
        cells = [per_cell(m, view.size, self.tile) for m in maps[: max(1, self.max_level)]]
        scores = torch.stack(cells + cells[-1:] * (self.max_level - len(cells)))
        try:
            return Plan.from_scores(scores, self.tile, view.size, self.budget - view.spent, self.max_level)
        except ValueError as error:
            looked = f" (of {self.budget:g}, after a coarse pass of {view.spent:.3g})" if view.spent else ""
            raise ValueError(f"{error}{looked}") from None


def per_cell(density: Tensor, size: tuple[int, int], tile: int) -> Tensor:
    """Integrate a map over cells.

    Args:
        density: Gain per pixel [N, h, w]; a sample covers ceil(H / h) px, rounded up to a power of two.
        size: Height and width of the image [px].
        tile: Side of a cell [px].

    Returns:
        [N, Gh, Gw], in gain times cells; only what lies in the image counts.
    """
    unit = max(-(-size[0] // density.shape[1]), -(-size[1] // density.shape[2]))
    stride = 1 << (unit - 1).bit_length()
    part = gcd(stride, tile)
    fine = density.repeat_interleave(stride // part, 1).repeat_interleave(stride // part, 2)
    fine = fine[:, : -(-size[0] // part), : -(-size[1] // part)]
    down, across = (_covered(n, part).to(fine.device) for n in size)
    fine = fine * down[:, None] * across
    rows, columns = (cells * tile // part for cells in grid(size, tile))
    fine = F.pad(fine, (0, columns - fine.shape[2], 0, rows - fine.shape[1]))
    return F.avg_pool2d(fine[:, None].float(), tile // part)[:, 0]


def _covered(pixels: int, part: int) -> Tensor:
    """Share of every `part` pixels in a row that lie in the image."""
    return (pixels - part * torch.arange(-(-pixels // part))).clamp(max=part) / part
