"""Regions that a second network looks at again, by the answer of a first one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveal.geometry.plan import Plan
from foveal.geometry.regions import Regions
from foveal.policies.budgeted import Score, per_cell
from foveal.policies.protocol import View


@dataclass(frozen=True)
class Again:
    """What a second network does.

    Attributes:
        cells: Cells that it answers [N, Gh, Gw], bool.
        plan: All that it computes for them.
    """

    cells: Tensor
    plan: Plan


@dataclass(frozen=True)
class RegionPolicy:
    """Takes the regions of the highest scores, every image by itself.

    Attributes:
        score: Says from a view with the first answer how much is gained where.
        regions: How regions are computed.
        tile: Side of a cell [px].
        budget: Share of the dense work of the second network, the first answer included.
        threshold: Least mean score of a region; any if absent.
    """

    score: Score
    regions: Regions
    tile: int
    budget: float
    threshold: float | None = None

    def __call__(self, view: View, spent: Tensor, wanted: Tensor | None = None) -> Again:
        """Take what the budget pays for.

        Args:
            view: The images and the first answer.
            spent: What that cost [N].
            wanted: Cells that may be computed [N, Gh, Gw]; all if absent.

        Raises:
            ValueError: The first answer alone is beyond the budget.
        """
        most = float(spent.max())
        if most > self.budget:
            raise ValueError(
                f"budget is {self.budget:g} and the first answer alone takes {most:.3g} of the dense work; "
                "raise the budget, or the level of that answer"
            )
        scores = self._scores(view)
        scores = scores if wanted is None else scores * wanted.cpu()
        left = ((self.budget - spent) * view.size[0] * view.size[1] / self.tile**2 + 1e-9).tolist()
        pairs = zip(scores, left, strict=True)
        chosen = torch.stack([self.regions.choose(each, tiles, self.threshold) for each, tiles in pairs])
        return self._again(chosen, view, wanted)

    def share(self, view: View, share: float) -> Again:
        """Take a share of the regions, at least one, whatever it costs."""
        scores = self._scores(view)
        count = max(1, round(share * self.regions.rates(scores[0]).numel()))
        return self._again(torch.stack([self.regions.best(each, count) for each in scores]), view)

    def left(self, view: View, cells: Tensor) -> Tensor:
        """Return the score per pixel of the images [N] in cells [N, Gh, Gw] alone."""
        return (
            (self._scores(view) * cells).sum((1, 2)).double() * self.tile**2 / (view.size[0] * view.size[1])
        )

    def _scores(self, view: View) -> Tensor:
        """Return the score of every cell [N, Gh, Gw]; on the CPU, where sums have one order."""
        found = self.score(view)
        return per_cell(found if isinstance(found, Tensor) else found[0], view.size, self.tile).cpu()

    def _again(self, chosen: Tensor, view: View, wanted: Tensor | None = None) -> Again:
        plan = Plan(self.regions.levels(chosen), self.tile, view.size)
        plan = plan if wanted is None else plan.only(wanted)
        return Again(self.regions.used(chosen, plan.levels) & (plan.levels == 0), plan)
