"""The value type of a decision: which tiles are computed, and at which level."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from pathlib import Path

import torch
from torch import Tensor

from foveal.geometry.layout import Layout
from foveal.geometry.refine import check_budget as check_budget  # part of what a plan is made of
from foveal.geometry.refine import grid, refine
from foveal.geometry.squares import group_squares
from foveal.storage.atomic import write_atomically
from foveal.storage.given import need
from foveal.storage.pictures import figure, label_picture
from foveal.storage.reading import read_json, refusal
from foveal.storage.schema import MOST_LEVEL, Side, Tile, read_as

SKIP = -1
SHADES = "█▒░·"
BLANK = " "
CELL = 12
"""Side of a cell in a notebook's picture [px]."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Which tiles are computed, and at which level: the leaves of a quadtree over every image.

    The image is covered by cells of `tile` x `tile` pixels. A level-k tile covers an aligned square of
    2^k x 2^k cells (at the image's right and lower edge, what there is of it) with `tile` x `tile` samples.

    A plan lives on the CPU, wherever images and tiles are: levels that are given on another device are moved
    here, which waits for that device. Nothing later does.

    Attributes:
        levels: Level per cell [N, Gh, Gw]; 0 full resolution, 1 half, 2 a quarter, ..., or SKIP.
        tile: Side of a cell [px], and of every tile [samples].
        size: Height and width of the images [px].

    Raises:
        ValueError: The grid does not cover the image, or a leaf is no aligned square.
    """

    levels: Tensor
    tile: int
    size: tuple[int, int]

    def __post_init__(self) -> None:
        need(self.levels, Tensor, "levels", "a tensor [N, Gh, Gw] of whole numbers")
        if self.levels.is_meta or self.levels.layout is not torch.strided:
            raise ValueError("levels have no numbers, or are sparse; give an ordinary tensor [N, Gh, Gw]")
        object.__setattr__(self, "levels", self.levels.cpu())  # the one place where a decision changes device
        need(self.tile, Integral, "tile", "a whole number of pixels")
        need(self.size, (tuple, list), "size", "height and width, whole numbers of pixels")
        if len(self.size) != 2 or not all(isinstance(side, Integral) for side in self.size):
            raise ValueError(f"size is {self.size}; give height and width, whole numbers of pixels")
        if self.tile < 1 or min(self.size) < 1:
            raise ValueError(
                f"a plan needs a tile and sides of at least 1 px, given {self.tile}, {self.size}"
            )
        expected = grid(self.size, self.tile)
        if self.levels.ndim != 3 or tuple(self.levels.shape[1:]) != expected:
            raise ValueError(
                f"levels are {tuple(self.levels.shape)}; an image of {self.size[0]}x{self.size[1]} with tile "
                f"{self.tile} needs [N, {expected[0]}, {expected[1]}]"
            )
        if self.levels.is_floating_point() or not self.levels.numel() or int(self.levels.min()) < SKIP:
            raise ValueError("levels are integers: 0 full resolution, 1 half, ..., or SKIP (-1)")
        if int(self.levels.max()) > MOST_LEVEL:
            raise ValueError(f"a level is {int(self.levels.max())}; give levels up to {MOST_LEVEL}")
        for level in range(1, int(self.levels.max()) + 1):
            same = group_squares(self.levels == level, 2**level)
            if (same.any(-1) & ~same.all(-1)).any():
                raise ValueError(
                    f"a level-{level} tile must cover an aligned square of {2**level}x{2**level} cells; "
                    "Plan.from_scores and Plan.from_blocks make valid plans"
                )

    @classmethod
    def uniform(cls, images: int, size: tuple[int, int], tile: int, level: int = 0) -> Plan:
        """Put every tile of `images` images at one level."""
        return cls(torch.full((images, *grid(size, tile)), level, dtype=torch.int8), tile, size)

    @classmethod
    def from_blocks(cls, levels: Tensor, block: int, tile: int, size: tuple[int, int]) -> Plan:
        """Spread a decision per block over its cells.

        Args:
            levels: Level per block [N, Bh, Bw].
            block: Side of a block [px], a multiple of `tile`.
            tile: Side of a cell [px].
            size: Height and width of the images [px].
        """
        if block % tile:
            raise ValueError(f"block is {block} px and tile {tile}; a block must hold whole tiles")
        cells = levels.repeat_interleave(block // tile, 1).repeat_interleave(block // tile, 2)
        rows, columns = grid(size, tile)
        return cls(cells[:, :rows, :columns].to(torch.int8), tile, size)

    @classmethod
    def from_scores(
        cls, scores: Tensor, tile: int, size: tuple[int, int], budget: float, max_level: int = 1
    ) -> Plan:
        """Refine where the score is highest, as far as the budget goes, every image by itself.

        Everything starts at level `max_level`. Splitting a tile into the four of the next finer level gains
        the scores under it and costs up to three tiles; splits happen in the order of their rates
        (`planner.rates`): a split that gains little counts with what it opens. Wherever the concave hull of
        gain over tiles has a corner, no plan of as many tiles gains more. The result depends on each image
        alone. Plans of growing budgets are nested.

        Args:
            scores: Gain per cell [N, Gh, Gw], or per level [max_level, N, Gh, Gw]: entry k is the gain of
                going from level k + 1 to level k.
            tile: Side of a cell [px].
            size: Height and width of the images [px].
            budget: Tiles to spend, as a share of the dense work. Below 1, the plan exceeds it by at most one
                tile, and the next split in order would not fit.
            max_level: Level that everything starts at.

        Raises:
            ValueError: The budget is no share, or below the cheapest plan, or the scores are not finite.
        """
        return cls(refine(scores, tile, size, budget, max_level, shared=False), tile, size)

    @classmethod
    def shared(
        cls, scores: Tensor, tile: int, size: tuple[int, int], budget: float, max_level: int = 1
    ) -> Plan:
        """Refine where the score is highest in the whole batch, as far as one budget for all images goes.

        As `from_scores`, with all images as one: those that gain more get more tiles, and the batch exceeds
        its budget by at most one tile.

        Args:
            scores: Gain per cell [N, Gh, Gw], or per level [max_level, N, Gh, Gw], comparable among images.
            tile: Side of a cell [px].
            size: Height and width of the images [px].
            budget: Tiles to spend on all images, as a share of the dense work for all of them.
            max_level: Level that everything starts at.

        Raises:
            ValueError: The budget is no share, or below the cheapest plan, or the scores are not finite.
        """
        return cls(refine(scores, tile, size, budget, max_level, shared=True), tile, size)

    def only(self, wanted: Tensor | None) -> Plan:
        """Return the plan without the tiles in which no cell is wanted [N, Gh, Gw], bool; all if None."""
        if wanted is None:
            return self
        levels, wanted = self.levels.clone(), wanted.cpu()
        for level in range(int(levels.max()) + 1):
            inside = group_squares(wanted, 2**level).any(-1)
            spread = inside.repeat_interleave(2**level, 1).repeat_interleave(2**level, 2)
            kept = spread[:, : levels.shape[1], : levels.shape[2]]
            levels[(levels == level) & ~kept] = SKIP
        return Plan(levels, self.tile, self.size)

    @cached_property
    def layout(self) -> Layout:
        """Place of every tile; tables of operations are kept there."""
        return _layout(self)

    @cached_property
    def tiles(self) -> Tensor:
        """Number of tiles per image [N]."""
        return torch.bincount(self.layout.image, minlength=len(self.levels))

    @property
    def work(self) -> Tensor:
        """Samples computed as a share of the image's pixels [N], padding at the edges included."""
        return self.tiles.double() * self.tile**2 / (self.size[0] * self.size[1])

    def share(self, level: int) -> float:
        """Part of the cells at a level."""
        return float((self.levels == level).double().mean())

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON.

        Raises:
            OSError: It cannot be written; an older file is then as it was.
        """
        state = {"tile": self.tile, "size": list(self.size), "levels": self.levels.tolist()}
        write_atomically(path, json.dumps(state))

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan that `save` wrote.

        Raises:
            ValueError: The file holds no plan.
        """
        state = read_json(path, "plan")
        try:
            height, width = read_as(tuple[Side, Side], state["size"], "size", "pair of sides")
            size = height, width
            given = torch.tensor(state["levels"])
            if given.dtype != torch.int64 or not bool(((given >= SKIP) & (given <= MOST_LEVEL)).all()):
                raise ValueError(f"its levels are no whole numbers from {SKIP} to {MOST_LEVEL}")
            return cls(given.to(torch.int8), read_as(Tile, state["tile"], "tile", "side"), size)
        except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise ValueError(f"{refusal(path, 'plan', error)}; write it again with Plan.save") from None

    def _repr_html_(self) -> str:
        """Show every image's levels as a picture, full resolution light, with the work, in a notebook."""
        tones = {SKIP: (24, 24, 28)} | {k: (235 >> k, 240 >> k, 255 >> k) for k in range(8)}
        palette = [tones[k] for k in range(8)] + [(0, 0, 0)] * 247 + [tones[SKIP]]
        figures = []
        for levels, work in zip(self.levels, self.work.tolist(), strict=True):
            grid_of = levels.to(torch.uint8).repeat_interleave(CELL, 0).repeat_interleave(CELL, 1)
            names = f"tile {self.tile}, {self.size[0]}x{self.size[1]} px, work {work:.3f}"
            figures.append(figure(label_picture(grid_of, palette), names))
        return "".join(figures)

    def __str__(self) -> str:
        """Draw the plan with block characters, a legend above."""
        names = {0: "full", 1: "half", 2: "quarter", SKIP: "skip"}
        found = sorted(set(self.levels.flatten().tolist()), key=lambda level: level % 100)
        legend = "   ".join(
            f"{shade(level)} {names.get(level, f'1/{2**level}')} {self.share(level):.0%}" for level in found
        )
        work = ", ".join(f"{w:.3f}" for w in self.work.tolist())
        title = f"tile {self.tile}, {self.size[0]}x{self.size[1]} px   {legend}   work {work}"
        pictures = ["\n".join("".join(shade(c) * 2 for c in row) for row in n) for n in self.levels.tolist()]
        return "\n\n".join([title, *pictures]) if len(pictures) > 1 else f"{title}\n{pictures[0]}"


def overlay(plans: Sequence[Plan]) -> Tensor:
    """Say which level every cell is from after passes in this order [N, Gh, Gw]; SKIP leaves it as it was."""
    levels = plans[0].levels
    for plan in plans[1:]:
        levels = torch.where(plan.levels == SKIP, levels, plan.levels)
    return levels


def shade(level: int) -> str:
    """Character that stands for a level."""
    return BLANK if level == SKIP else SHADES[min(level, len(SHADES) - 1)]


def _layout(plan: Plan) -> Layout:
    """List the tiles by image, then by first cell in reading order."""
    levels = plan.levels.long()
    row = torch.arange(levels.shape[1])[:, None]
    column = torch.arange(levels.shape[2])[None, :]
    side = torch.ones_like(levels) << levels.clamp(min=0)
    first = (levels >= 0) & (row % side == 0) & (column % side == 0)
    image, rows, columns = first.nonzero().unbind(1)
    number = torch.full_like(levels, -1)
    number[first] = torch.arange(len(image))
    batch = torch.arange(len(levels))[:, None, None]
    owner = number[batch, row - row % side, column - column % side]
    return Layout(plan.size, plan.tile, image, levels[first], rows, columns, owner, computed=len(image))
