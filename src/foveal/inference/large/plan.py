"""One plan for a whole large image: the budget goes where the doubt is, in whatever window it lies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveal.geometry.plan import SKIP
from foveal.inference.large.coarse import block_part
from foveal.inference.large.grid import Cut, count_squares
from foveal.inference.large.task import Task

PLAN = "plan"


@dataclass(frozen=True)
class LargePlan:
    """Which cells of a large image are computed, and which of them at full resolution.

    Attributes:
        wanted: Cells [Gh, Gw], bool, in which something is wanted.
        refined: Those of them that are refined.
    """

    wanted: Tensor
    refined: Tensor

    def levels(self, coarse_level: int) -> Tensor:
        """Return the level that the answer of every cell comes from [Gh, Gw], int8; -1 where nothing is."""
        levels = torch.where(self.refined, 0, coarse_level)
        return torch.where(self.wanted, levels, SKIP).to(torch.int8)


def make_plan(task: Task) -> LargePlan:
    """Make the plan when all blocks are done, or read the one that was made.

    It takes about forty bytes a cell, 40 MB for a thousand megapixels in tiles of 32 px.

    Raises:
        ValueError: The budget does not pay for the coarse pass.
    """
    if task.parts.has(PLAN):
        found = task.parts.read(PLAN)
        cells = (found.rows(name, shape=task.cut.cells) for name in ("wanted", "refined"))
        return LargePlan(*(torch.from_numpy(kept.copy()) for kept in cells))
    wanted = torch.zeros(task.cut.cells, dtype=torch.bool)
    gains = torch.zeros(task.cut.cells, dtype=torch.float64)
    shares = _shares(task)
    for k, block in enumerate(task.cut.blocks):
        found, place = task.parts.read(block_part(k)), task.cut.cells_of(block)
        own = tuple(wanted[place].shape)
        wanted[place] = torch.from_numpy(found.rows("wanted", shape=own).copy())
        if shares is not None and "maps" in found:
            gains[place] = task.uncertainty.gains(
                torch.from_numpy(found.rows("maps").copy()).transpose(0, 1), shares
            )
    plan = LargePlan(wanted, wanted if task.is_dense else _choose(task, wanted, gains))
    task.parts.write(PLAN, {"wanted": plan.wanted.numpy(), "refined": plan.refined.numpy()})
    return plan


def dense_tiles(cut: Cut, wanted: Tensor) -> float:
    """Return the dense work on the wanted cells [Gh, Gw], in tiles; parts of one at the image's edge."""
    sides = [
        (pixels - cut.tile * torch.arange(cells)).clamp(max=cut.tile).double()
        for pixels, cells in zip(cut.size, cut.cells, strict=True)
    ]
    return float(sides[0] @ wanted.double() @ sides[1]) / cut.tile**2


def _shares(task: Task) -> Tensor | None:
    """Sum up what every block says of the classes [K]; None if nothing was looked at."""
    total: Tensor | None = None
    for k in range(len(task.cut.blocks)):
        found = task.parts.read(block_part(k))
        if "shares" in found:
            one = torch.from_numpy(found.rows("shares").copy())
            total = one if total is None else total + one
    return total


def check_budget(budget: float, cut: Cut, wanted: Tensor) -> float:
    """Return how many tiles a budget pays for after the coarse pass on the wanted cells [Gh, Gw].

    Raises:
        ValueError: It does not pay for that.
    """
    whole, coarse = dense_tiles(cut, wanted), count_squares(wanted, 1 << cut.level)
    paid = budget * whole - coarse
    if paid < -1e-6:
        raise ValueError(
            f"budget is {budget:g} and the coarse pass at level {cut.level} takes {coarse / whole:.3g} of "
            "the dense work on what is wanted; raise the budget or the coarse level"
        )
    return paid


def _choose(task: Task, wanted: Tensor, gains: Tensor) -> Tensor:
    """Refine where most is gained, as far as the budget goes."""
    if not bool(wanted.any()):
        return wanted
    paid = check_budget(task.config.budget, task.cut, wanted)
    refinement, held = task.config.refinement, torch.where(wanted, task.level, SKIP)
    return refinement.choose([refinement.forest([gains], held, 0)], [paid + 1e-9])[0] & wanted
