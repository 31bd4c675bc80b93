"""Maps that one dense network a level computes for one image, and what each takes over from the others.

A canvas is the dense map of the whole image at one level. Which of its samples count says the plan: those
of the tiles at that level. What it shows elsewhere follows from the one rule of `DESIGN.md`: the nearest
sample of a coarser tile, or the mean of the four samples one level finer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.geometry.plan import Plan

Maps = Mapping[int, Tensor]
"""Level -> what the network computes at it."""


class Axes(NamedTuple):
    """Which dimensions of a tensor run over the image.

    Attributes:
        rows: The dimension of rows; None if there is none.
        columns: That of columns.
        both: A dimension that runs over all samples, row by row; then there are no others.
        stride: Image pixels per sample at level 0; 0 if no dimension runs over the image.
    """

    rows: int | None = None
    columns: int | None = None
    both: int | None = None
    stride: int = 0

    @property
    def is_map(self) -> bool:
        """Whether there is a sample for every place."""
        return self.both is not None or (self.rows is not None and self.columns is not None)


class Canvases:
    """What the canvases of one image show, under one plan.

    Args:
        plan: Of one image, without skipped places.
    """

    def __init__(self, plan: Plan) -> None:
        self.size, self.tile, self.cells = plan.size, plan.tile, plan.levels[0].long()
        self.levels = list(range(int(self.cells.min()), int(self.cells.max()) + 1))

    def extent(self, stride: int, level: int) -> tuple[int, int]:
        """Rows and columns of the map that a dense network has at a stride and a level."""
        unit = stride << level
        return -(-self.size[0] // unit), -(-self.size[1] // unit)

    def axes(self, shapes: Sequence[torch.Size]) -> Axes | None:
        """Find which dimensions run over the image, by how they differ from level to level.

        Returns:
            The dimensions, none if all shapes are alike; None if they differ in another way.
        """
        if len({len(shape) for shape in shapes}) > 1:
            return None
        sides = {d: sizes for d, sizes in enumerate(zip(*shapes, strict=True)) if len({*sizes}) > 1}
        if not sides:
            return Axes()
        strides = [self.tile >> k for k in range(self.tile.bit_length()) if self.tile % (1 << k) == 0]
        found = (self._axes_at(sides, stride) for stride in sorted(strides))
        return next((axes for axes in found if axes is not None), None)

    def _axes_at(self, sides: Mapping[int, tuple[int, ...]], stride: int) -> Axes | None:
        extents = [self.extent(stride, level) for level in self.levels]
        kinds = {
            "rows": tuple(h for h, _ in extents),
            "columns": tuple(w for _, w in extents),
            "both": tuple(h * w for h, w in extents),
        }
        found: dict[str, int] = {}
        for dim, sizes in sides.items():
            kind = next((k for k, known in kinds.items() if known == sizes and k not in found), None)
            if kind is None or (kind == "both" and found) or "both" in found:
                return None
            found[kind] = dim
        return Axes(**found, stride=stride)

    def seen(self, x: Tensor, axes: Axes, level: int) -> Tensor:
        """View a map with rows and columns last."""
        if axes.both is not None:
            x = x.unflatten(axes.both, self.extent(axes.stride, level))
            return x.movedim((axes.both, axes.both + 1), (-2, -1))
        assert axes.rows is not None and axes.columns is not None, "a map has them"
        return x.movedim((axes.rows, axes.columns), (-2, -1))

    def owners(self, axes: Axes, level: int) -> Tensor:
        """Level of the tile that holds each place of a canvas [H, W]."""
        rows, columns = (
            (torch.arange(side) * (axes.stride << level)) // self.tile
            for side in self.extent(axes.stride, level)
        )
        return self.cells[rows[:, None], columns]

    def painted(self, maps: Maps, axes: Axes) -> dict[int, Tensor]:
        """Return what every canvas shows, rows and columns last."""
        own = {level: self.seen(maps[level], axes, level) for level in self.levels}
        shown: dict[int, Tensor] = {}
        for level in self.levels:
            owner, out = self.owners(axes, level).to(own[level].device), own[level]
            rows, columns = (torch.arange(side, device=out.device) for side in owner.shape)
            for coarser in range(level + 1, self.levels[-1] + 1):
                shift = coarser - level
                nearest = own[coarser][..., (rows >> shift)[:, None], columns >> shift]
                out = torch.where(owner == coarser, nearest, out)
            if level - 1 in shown:
                out = torch.where(owner < level, halved(shown[level - 1]), out)
            shown[level] = out
        return shown

    def repaint(self, maps: Maps) -> None:
        """Let every canvas show what the others know, in place; what is no map stays as it is."""
        axes = self.axes([maps[level].shape for level in self.levels])
        first = maps[self.levels[0]]
        if axes is None or not axes.is_map or not first.is_floating_point() or not first.numel():
            return
        if any(s == 0 < n - 1 for s, n in zip(first.stride(), first.shape, strict=True)):
            return  # spread from fewer values: a view of what has been painted
        for level, shown in self.painted(maps, axes).items():
            self.seen(maps[level], axes, level).copy_(shown)

    def composed(self, maps: Maps, base: int) -> Tensor | None:
        """Put the image together at a level; coarser tiles are enlarged bilinearly. None if it is no map."""
        axes = self.axes([maps[level].shape for level in self.levels])
        if axes is None or not axes.is_map:
            return None
        shown, (height, width) = self.painted(maps, axes), self.extent(axes.stride, base)
        owner = self.owners(axes, base).to(maps[self.levels[0]].device)
        out = None
        for level in self.levels:
            flat = shown[level].reshape(1, -1, *shown[level].shape[-2:])
            if level > base:
                flat = F.interpolate(flat, scale_factor=2 ** (level - base), mode="bilinear")
            large = flat[:, :, :height, :width].reshape(*shown[level].shape[:-2], height, width)
            out = large if out is None else torch.where(owner == level, large, out)
        assert out is not None, "a plan has levels"
        if axes.both is not None:
            return out.flatten(-2).movedim(-1, axes.both)
        assert axes.rows is not None and axes.columns is not None, "a map has them"
        return out.movedim((-2, -1), (axes.rows, axes.columns))

    def reduced(self, maps: Maps) -> dict[int, Tensor]:
        """Return the finest map as every level sees it, averaged 2 x 2; what is no map stays as it is."""
        axes = self.axes([maps[level].shape for level in self.levels])
        if axes is None:
            return dict(maps)
        first = self.levels[0]
        found = {first: maps[first]}
        for level in self.levels[1:]:
            found[level] = self._reduced_once(found[level - 1], axes, level - 1)
        return found

    def _reduced_once(self, x: Tensor, axes: Axes, level: int) -> Tensor:
        if not axes.stride or not x.is_floating_point() or not x.numel():
            return x
        if axes.both is not None:
            return halved(self.seen(x, axes, level)).flatten(-2).movedim(-1, axes.both)
        for dim in (d for d in (axes.rows, axes.columns) if d is not None):
            x = halved(x.movedim(dim, -1)[..., None, :])[..., 0, :].movedim(-1, dim)
        return x

    def moments(self, maps: Maps, groups: int) -> tuple[Tensor, Tensor] | None:
        """Mean and variance [N, groups] of maps [N, C, ...]; a sample counts with the area it stands for."""
        axes = self.axes([maps[level].shape for level in self.levels])
        if axes is None or not axes.is_map:
            return None
        weights, rows = [], []
        for level in self.levels:
            own = (self.owners(axes, level) == level).to(maps[level].device)
            samples = self.seen(maps[level], axes, level)[..., own]
            rows.append(samples.unflatten(1, (groups, -1)))
            weights.append(torch.full(samples.shape[-1:], 4.0**level).to(samples))
        weight, values = torch.cat(weights), torch.cat(rows, -1)
        total = weight.sum() * values.shape[2]
        mean = (values * weight).sum((2, -1)) / total
        centred = (values - mean[:, :, None, None]).square()
        return mean, (centred * weight).sum((2, -1)) / total

    def blanked(self, maps: Maps) -> dict[int, tuple[Tensor, float, float]] | None:
        """Return every map with zeros where it does not count, its number of places, and those that count."""
        axes = self.axes([maps[level].shape for level in self.levels])
        if axes is None or not axes.is_map:
            return None
        found = {}
        for level in self.levels:
            own = (self.owners(axes, level) == level).to(maps[level].device)
            blank = torch.empty_like(maps[level])
            self.seen(blank, axes, level).copy_(self.seen(maps[level], axes, level) * own)
            found[level] = blank, float(own.numel()), float(own.sum())
        return found


def halved(x: Tensor) -> Tensor:
    """Average 2 x 2 samples [..., H, W], at an odd edge those that exist."""
    flat = x.reshape(1, -1, *x.shape[-2:])
    out = F.avg_pool2d(flat, (min(2, x.shape[-2]), 2), ceil_mode=True, count_include_pad=False)
    return out.reshape(*x.shape[:-2], *out.shape[-2:])
