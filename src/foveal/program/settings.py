"""What a run of a program may be asked to do: the settings of the methods, as values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from foveal.program.asked import check_budget, check_kinds
from foveal.program.spec import MOST_LEVELS, SCORES
from foveal.storage.labels import MASK_BORDERS
from foveal.storage.names import find

__all__ = [
    *("SCORES", "CoarseToFineRun", "DenseRun", "PlannedRun", "RefinedRun", "ReuseRun", "SegBlocksRun"),
    "Settings",
]


@dataclass(frozen=True)
class DenseRun:
    """Everything at full resolution, at once.

    Attributes:
        tile: Side of a cell of the levels that are returned, and of a mask [px]; the network's coarsest
            stride where that is above 32, the usual side.
    """

    tile: int = 32

    def __post_init__(self) -> None:
        check_kinds(self)


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """The tiles of a given plan.

    Attributes:
        levels: Level per cell [N, Gh, Gw], int8: 0 full, 1 half, ...; -1 where nothing is computed.
        tile: Side of a cell [px].
    """

    levels: np.ndarray[Any, Any]
    tile: int = 32

    def __post_init__(self) -> None:
        check_kinds(self)


@dataclass(frozen=True)
class SegBlocksRun:
    """A coarse pass decides the level of every tile; then these run, and nothing else.

    Attributes:
        budget: Share of the dense work, the coarse pass included.
        score: Name of what goes by the coarse answer, one of `SCORES`.
        tile: Side of a tile [px].
        max_level: Coarsest level that may occur.
        coarse_level: Level of the coarse pass.
    """

    budget: float = 0.4
    score: str = "entropy"
    tile: int = 32
    max_level: int = 2
    coarse_level: int = 2

    def __post_init__(self) -> None:
        _check(self, "max_level", "coarse_level")


@dataclass(frozen=True)
class CoarseToFineRun:
    """Everything at a coarse level, then finer tiles where the answer is uncertain.

    Attributes:
        budget: Share of the dense work, all passes included.
        score: Name of what goes by the answer of the pass before, one of `SCORES`.
        tile: Side of a tile [px].
        coarse_level: Level of the first pass.
        level_gain: What a step to level 0, 1, ... gains, as a share of the score.
        logit_blend: Share of the coarser answer that stays in the answer of a finer pass.
        threshold: Gain per tile from which a tile is refined, within the budget; None for all that fit.
        shared: Whether one budget serves all images of a batch.
        direct: Whether tiles go from the coarse level to full resolution at once.
        isolated_gain: Share of its gain that a tile has if no neighbour is refined; 1 ignores neighbours.
        mask_border: What places at the edge of a mask border on: "edge", what lies beyond an image, or
            "coarse", a first pass that goes one cell beyond the mask.
    """

    budget: float = 0.4
    score: str = "weighted_entropy"
    tile: int = 32
    coarse_level: int = 1
    level_gain: tuple[float, ...] = (0.5, 1.0)
    logit_blend: float = 0.0
    threshold: float | None = None
    shared: bool = False
    direct: bool = False
    isolated_gain: float = 1.0
    mask_border: str = "edge"

    def __post_init__(self) -> None:
        _check(self, "coarse_level")
        find(self.mask_border, dict.fromkeys(MASK_BORDERS), "mask_border")
        possible = all(0 <= gain < math.inf for gain in self.level_gain)
        if not 1 <= len(self.level_gain) <= MOST_LEVELS or not possible:
            raise ValueError(
                f"level_gain is {self.level_gain}; give 1 to {MOST_LEVELS} finite numbers of 0 or more"
            )
        if not 0 <= self.logit_blend <= 1:
            raise ValueError(f"logit_blend is {self.logit_blend:g}; give a share between 0 and 1")
        if not 0 <= self.isolated_gain <= 1:
            raise ValueError(f"isolated_gain is {self.isolated_gain:g}; give a share between 0 and 1")


@dataclass(frozen=True, eq=False)
class RefinedRun:
    """Everything that a mask wants at a coarse level, then the tiles that somebody else has chosen.

    Attributes:
        levels: Level that every cell is refined to [N, Gh, Gw], int8, finer than the coarse one; -1 where it
            is not.
        tile: Side of a tile [px].
        coarse_level: Level of the first pass.
        logit_blend: Share of the coarser answer that stays in the answer of a finer pass.
    """

    levels: np.ndarray[Any, Any]
    tile: int = 32
    coarse_level: int = 1
    logit_blend: float = 0.0

    def __post_init__(self) -> None:
        check_kinds(self)
        if not 0 <= self.coarse_level < MOST_LEVELS:
            raise ValueError(f"level is {self.coarse_level}; a program has levels 0 to {MOST_LEVELS - 1}")
        if self.levels.size and int(self.levels.max()) >= self.coarse_level:
            raise ValueError(
                f"levels reach {int(self.levels.max())} and the first pass is at {self.coarse_level}; give "
                "finer ones, and -1 where nothing is refined"
            )
        if not 0 <= self.logit_blend <= 1:
            raise ValueError(f"logit_blend is {self.logit_blend:g}; give a share between 0 and 1")


@dataclass(frozen=True)
class ReuseRun:
    """The next frame of a video, of a `Stream`: every place is kept, or computed at the level that pays.

    Attributes:
        budget: Share of the dense work of a frame.
        score: Name of what says how uncertain the last answer is, one of `SCORES`.
        tile: Side of a tile [px].
        coarse_level: Coarsest level of what is computed.
        level_gain: What a step to level 0, 1, ... gains, as a share of the score.
        max_age: Frames after which a place whose pixels differ at all is computed again.
        hysteresis: Gain that another level than the last one needs, as a share of the uncertainty.
        noise: Change of a cell [0..1] below which it is taken for noise.
        clear: Change from which its answer is taken for wrong.
        unseen: Uncertainty that every cell has, whatever its last answer: what is new there is not known.
        stale: Error of an answer that is wrong because the picture changed, in errors of the coarsest level.
        overdue: Error that an answer as old as allowed has beside its own; it grows with its age.
    """

    budget: float = 0.1
    score: str = "weighted_entropy"
    tile: int = 32
    coarse_level: int = 2
    level_gain: tuple[float, ...] = (0.5, 1.0)
    max_age: int = 30
    hysteresis: float = 0.1
    noise: float = 0.02
    clear: float = 0.12
    unseen: float = 0.05
    stale: float = 2.0
    overdue: float = 0.05

    def __post_init__(self) -> None:
        _check(self, "coarse_level")
        numbers = (*self.level_gain, self.hysteresis, self.noise, self.unseen, self.stale, self.overdue)
        if not 1 <= len(self.level_gain) <= MOST_LEVELS or not all(0 <= x < math.inf for x in numbers):
            raise ValueError(f"settings are {numbers}; give finite numbers of 0 or more")
        if not self.noise < self.clear < math.inf or not 1 <= self.max_age < 1 << 31:
            raise ValueError(
                f"clear is {self.clear:g} and max_age {self.max_age}; clear must be above noise, "
                f"{self.noise:g}, and max_age at least 1"
            )


Settings = DenseRun | PlannedRun | SegBlocksRun | CoarseToFineRun | RefinedRun | ReuseRun


def _check(settings: SegBlocksRun | CoarseToFineRun | ReuseRun, *levels: str) -> None:
    """Refuse a budget that is no share, a score that there is not, levels beyond the last, other types."""
    check_budget(settings.budget)
    check_kinds(settings)
    if settings.score not in SCORES:
        raise ValueError(f"no score named '{settings.score}'; a program has {', '.join(SCORES)}")
    level = max(getattr(settings, name) for name in levels)
    if not 0 <= level < MOST_LEVELS:
        raise ValueError(f"level is {level}; a program has levels 0 to {MOST_LEVELS - 1}")


def shrunk_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Return height and width of the shrunk image [px]."""
    if scale == 1:
        return size
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


ENLARGED = (4, 2, 1)
"""Strides of an image: logits of a shrunk one are enlarged to the first that keeps all of them, and from
there on as those of the whole image."""


def enlarged_grid(grid: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns that logits of a shrunk image are enlarged to.

    Args:
        grid: Rows and columns that they have.
        size: Height and width of the image that came in [px].
    """
    grids = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in ENLARGED]
    return next((found for found in grids if grid[0] <= found[0] and grid[1] <= found[1]), grids[-1])


def logits_grid(size: tuple[int, int], sides: tuple[int, int], stride: int) -> tuple[int, int]:
    """Return rows and columns of the logits of images of `size` [px] that run at `sides` [px].

    Args:
        size: Height and width of the images that come in.
        sides: What they are shrunk to; the same if they are not.
        stride: Pixels of the image that runs per sample of its logits.
    """
    inner = -(-sides[0] // stride), -(-sides[1] // stride)
    return inner if sides == size else enlarged_grid(inner, size)
