"""A plan as terminal text and as a row."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from typer import style

from foveal.geometry.plan import SKIP, Plan, shade
from foveal.inference.result import level_shares

WIDEST = 40
"""Most cells of a plan in a row of the terminal; a cell is two characters wide."""
LEVEL_NAMES = {0: "full", 1: "half", 2: "quarter", SKIP: "skip"}


@dataclass(frozen=True)
class PlanRow:
    """A saved plan of one image.

    Attributes:
        size: Height and width of the image [px].
        tile: Side of a tile [px].
        work: Share of the dense network's work.
        levels: Share of the cells at every level.
    """

    size: tuple[int, int]
    tile: int
    work: float
    levels: dict[str, float]


def plan_row(plan: Plan, image: int = 0) -> PlanRow:
    """Describe the plan of one image."""
    levels = {str(level): round(share, 4) for level, share in level_shares(plan.levels[image]).items()}
    return PlanRow(plan.size, plan.tile, round(float(plan.work[image]), 4), levels)


def level_name(level: int) -> str:
    """Name of a level: full, half, quarter, 1/8, ..., skip."""
    return LEVEL_NAMES.get(level, f"1/{2 ** max(level, 0)}")


def plan_text(levels: Tensor, tile: int, widest: int = WIDEST) -> str:
    """Draw levels [Gh, Gw] with block characters, their legend below.

    A grid of more columns than fit is drawn more coarsely: every square shows the level that most of its
    cells have.
    """
    widest = max(4, min(widest, (shutil.get_terminal_size().columns - 4) // 2))
    cells = _coarser(levels, -(-levels.shape[1] // widest))
    rows = ["".join(shade(level) * 2 for level in row) for row in cells.tolist()]
    legend = "   ".join(
        f"{shade(k)} {level_name(k)} {share:.0%}" for k, share in level_shares(levels).items()
    )
    return "\n".join([*rows, "", f"{legend}   {style(f'tile {tile} px', dim=True)}"])


def _coarser(levels: Tensor, factor: int) -> Tensor:
    """Reduce a grid of cells; every square takes its most frequent level, the finer of two."""
    if factor == 1:
        return levels
    rows, columns = levels.shape
    found = sorted(set(levels.flatten().tolist()), key=lambda level: (level == SKIP, level))
    masks = torch.stack([(levels == level).float() for level in found])[None]
    counts = F.avg_pool2d(masks, factor, ceil_mode=True, divisor_override=1)[0]
    return torch.tensor(found)[counts.argmax(0)][: -(-rows // factor), : -(-columns // factor)]
