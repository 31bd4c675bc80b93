"""How an image is cut: cells of a tile, windows that are computed at once, blocks of the coarse pass."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from foveal.geometry.plan import grid
from foveal.inference.large.source import Window


@dataclass(frozen=True)
class Cut:
    """Windows and blocks of an image.

    Attributes:
        size: Height and width of the image [px].
        tile: Side of a cell [px].
        level: Level of the coarse pass.
        window: Side of a window [px], a multiple of `unit`.
        unit: Borders lie at multiples of it [px]: there coarse tiles and padded images end.
    """

    size: tuple[int, int]
    tile: int
    level: int
    window: int
    unit: int

    @classmethod
    def of(cls, size: tuple[int, int], tile: int, level: int, window: int, multiple: int) -> Cut:
        """Round the side of a window up to what tiles and padding allow.

        Raises:
            ValueError: The window is smaller than a pixel.
        """
        if window < 1:
            raise ValueError(f"window is {window} px; give at least 1, such as 2048")
        unit = math.lcm(tile, multiple) << level
        return cls(size, tile, level, -(-window // unit) * unit, unit)

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of cells of the image."""
        return grid(self.size, self.tile)

    @property
    def windows(self) -> list[Window]:
        """All windows [px], in reading order; the last ones end where the image does."""
        return self._squares(self.window)

    @property
    def blocks(self) -> list[Window]:
        """What is looked at coarsely at once [px]: two windows a side, whose coarse samples are fewer."""
        return self._squares(self.window << min(1, self.level))

    def within(self, block: Window) -> list[Window]:
        """Return the windows of a block."""
        side = self.window
        rows = range(block.top, block.bottom, side)
        columns = range(block.left, block.right, side)
        return [self._cropped(y, x, side) for y in rows for x in columns]

    def around(self, window: Window, pixels: int) -> Window:
        """Return a window with so many pixels around it, rounded up to units, as far as the image goes."""
        more = -(-pixels // self.unit) * self.unit
        top, left = max(0, window.top - more), max(0, window.left - more)
        bottom, right = (
            min(side, end + more) for side, end in zip(self.size, (window.bottom, window.right), strict=True)
        )
        return Window(top, left, bottom - top, right - left)

    def at(self, window: Window, level: int) -> Window:
        """Return a window that begins at a unit in samples of a level."""
        bottom, right = -(-window.bottom >> level), -(-window.right >> level)
        top, left = window.top >> level, window.left >> level
        return Window(top, left, bottom - top, right - left)

    def cells_of(self, window: Window) -> tuple[slice, slice]:
        """Return rows and columns of the cells of a window that begins at a unit."""
        rows, columns = grid((window.height, window.width), self.tile)
        top, left = window.top // self.tile, window.left // self.tile
        return slice(top, top + rows), slice(left, left + columns)

    def bounds(self, cells: Tensor, window: Window) -> Window:
        """Return the least part of a window, in whole units, that holds all marked cells [Gh, Gw] of it."""
        rows, columns = (cells.any(axis).nonzero()[:, 0] for axis in (1, 0))
        per = self.unit // self.tile
        sides = []
        for found, first, end in (
            (rows, window.top, window.bottom),
            (columns, window.left, window.right),
        ):
            low = first + int(found[0]) // per * self.unit
            sides.append((low, min(end, first + (int(found[-1]) // per + 1) * self.unit)))
        (top, bottom), (left, right) = sides
        return Window(top, left, bottom - top, right - left)

    def _squares(self, side: int) -> list[Window]:
        rows, columns = range(0, self.size[0], side), range(0, self.size[1], side)
        return [self._cropped(y, x, side) for y in rows for x in columns]

    def _cropped(self, y: int, x: int, side: int) -> Window:
        return Window(y, x, min(side, self.size[0] - y), min(side, self.size[1] - x))


def spread(cells: Tensor, steps: int) -> Tensor:
    """Mark also what lies at most so many cells away from a marked cell [Gh, Gw], in rows and in columns."""
    if steps == 0 or not bool(cells.any()):
        return cells
    x = cells[None, None].float()
    for window, border in (((2 * steps + 1, 1), (steps, 0)), ((1, 2 * steps + 1), (0, steps))):
        x = F.max_pool2d(x, window, 1, border)
    return x[0, 0] > 0


def squares(cells: Tensor, side: int) -> Tensor:
    """Return whether any cell [Gh, Gw] of every aligned square of a side is marked, spread over its cells."""
    rows, columns = cells.shape
    padded = F.pad(cells[None, None].float(), (0, -columns % side, 0, -rows % side))
    some = F.max_pool2d(padded, side)[0, 0] > 0
    return some.repeat_interleave(side, 0).repeat_interleave(side, 1)[:rows, :columns]


def count_squares(cells: Tensor, side: int) -> int:
    """Count the aligned squares of a side in which any cell [Gh, Gw] is marked."""
    return int(squares(cells, side)[::side, ::side].sum())
