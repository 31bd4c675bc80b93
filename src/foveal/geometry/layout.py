"""Where every tile lies: the geometry that operations work from.

The image is covered by a grid of finest cells of `tile` x `tile` pixels. A tile at level l covers an
aligned square of 2^l x 2^l cells and holds `side` x `side` samples at a stride, whatever its level.
A *coordinate* is a sample's row or column counted over the whole image at its own level and stride; the
sample covers `stride * 2^l` pixels, and belongs to the image if its first pixel does. So the extent of the
image is ceil(size / (stride * 2^l)), which is the size of the map that a dense network has there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

Fill = Literal["zero", "lowest", "edge"]
Borders = Literal["average", "strided", "zero"]
BORDERS: tuple[Borders, ...] = get_args(Borders)
"""What a sample of another tile is worth where a finer tile holds it: the mean of the samples it stands for,
or the first of them; or every sample of another tile is 0. The last two are there to be compared with.

Source: table IX of SegBlocks (Verelst and Tuytelaars, TPAMI 2022)."""


class Halo(NamedTuple):
    """Border that tiles borrow from their neighbours.

    Attributes:
        left: Columns before the tile.
        right: Columns after it.
        top: Rows above it.
        bottom: Rows below it.
        fill: What lies outside the image: zeros, the lowest number, or the image's edge repeated.
    """

    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0
    fill: Fill = "zero"

    @classmethod
    def around(cls, width: int, fill: Fill = "zero") -> Halo:
        """Same width on all four sides."""
        return cls(width, width, width, width, fill)

    @property
    def empty(self) -> bool:
        """Whether nothing is borrowed."""
        return not any(self[:4])


class HaloTable(NamedTuple):
    """Which row of which source goes where in the bordered tiles; rows are samples, in the order of tiles.

    Attributes:
        own: Destination and source rows [2, R] among the tiles computed now.
        kept: The same among the tiles kept from before.
        mean: Destinations [M] of averages over finer samples, or over nothing, which makes 0.
        own_parts: Average number and source row [2, P], among the tiles computed now.
        own_shares: Share [P] of each part in its average.
        kept_parts: As `own_parts`, among the tiles kept from before.
        kept_shares: As `own_shares`.
        outside: Destinations that lie outside the image, or where nothing is known.
    """

    own: Tensor
    kept: Tensor
    mean: Tensor
    own_parts: Tensor
    own_shares: Tensor
    kept_parts: Tensor
    kept_shares: Tensor
    outside: Tensor


@dataclass(frozen=True, eq=False)
class Layout:
    """Place and level of every tile of a batch of images.

    Attributes:
        size: Height and width of the images [px].
        tile: Side of a level-0 tile, which is the side of a cell [px].
        image: Image that a tile belongs to [B].
        level: Level of a tile [B].
        row: Row of a tile's first cell [B].
        column: Column of a tile's first cell [B].
        owner: Tile that holds a cell [N, Gh, Gw]; -1 where nothing is known.
        computed: How many tiles are computed now. They come first; the others were kept from before.
        borders: What the samples of other tiles are worth.
    """

    size: tuple[int, int]
    tile: int
    image: Tensor
    level: Tensor
    row: Tensor
    column: Tensor
    owner: Tensor
    computed: int
    borders: Borders = "average"
    _tables: dict[Any, HaloTable] = field(default_factory=dict, repr=False)
    _others: dict[str, Layout] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        """Count the tiles, kept ones included."""
        return len(self.image)

    @property
    def images(self) -> int:
        """Number of images N."""
        return self.owner.shape[0]

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """Levels that occur, finest first."""
        return tuple(sorted(set(self.level.tolist())))

    @cached_property
    def finest(self) -> tuple[int, ...]:
        """Finest level per image, 0 for an image without tiles."""
        found = [self.level[self.image == n] for n in range(self.images)]
        return tuple(int(levels.min()) if len(levels) else 0 for levels in found)

    def extent(self, side: int, level: int) -> tuple[int, int]:
        """Rows and columns that the image has at a level, where tiles have `side` samples."""
        unit = (self.tile // side) << level
        return -(-self.size[0] // unit), -(-self.size[1] // unit)

    @cached_property
    def everything(self) -> Layout:
        """The same tiles, all taken as computed now."""
        if self.computed == len(self):
            return self
        return replace(self, computed=len(self), _tables={}, _others={})

    def with_borders(self, borders: Borders) -> Layout:
        """Return the same tiles with another rule for borders; always the same layout, so tables are shared.

        Raises:
            ValueError: There is no such rule.
        """
        if borders not in BORDERS:
            raise ValueError(f"there are no borders '{borders}'; give one of {', '.join(BORDERS)}")
        if borders == self.borders:
            return self
        if borders not in self._others:
            self._others[borders] = replace(self, borders=borders, _tables={}, _others={})
        return self._others[borders]

    def of_images(self, images: list[int]) -> tuple[Layout, Tensor]:
        """Restrict the layout to some images; return which tiles that leaves [B], too."""
        if len(images) == self.images:
            return self, torch.ones_like(self.image, dtype=torch.bool)
        place = torch.full((self.images,), -1, device=self.image.device)
        place[images] = torch.arange(len(images), device=place.device)
        mask = place[self.image] >= 0
        number = torch.full((len(self) + 1,), -1, device=place.device)
        number[:-1][mask] = torch.arange(int(mask.sum()), device=place.device)
        image, level, row, column = (
            place[self.image[mask]],
            self.level[mask],
            self.row[mask],
            self.column[mask],
        )
        computed = int(mask[: self.computed].sum())
        owner = number[self.owner[images]]
        part = Layout(self.size, self.tile, image, level, row, column, owner, computed, self.borders)
        return part, mask

    def inside(self, side: int) -> Tensor | None:
        """Mark the samples [computed, side, side] that lie in the image; None if all do."""
        key = ("inside", side)
        if key not in self._tables:
            rows, columns = self._interior(side)
            inside = rows[:, :, None] & columns[:, None, :]
            self._tables[key] = None if bool(inside.all()) else inside  # type: ignore[assignment]
        return self._tables[key]  # type: ignore[return-value]

    def held(self, side: int) -> Tensor | None:
        """Mark the samples [computed, side, side] in the image that their tile owns; None if that is all."""
        inside = self.inside(side)
        if not self._overtaken:
            return inside
        within = torch.arange(side, device=self.row.device)
        image, level = self.image[: self.computed], self.level[: self.computed, None]
        rows, columns = (
            ((((first[: self.computed, None] * side >> level) + within) << level) // side).clamp(max=last - 1)
            for first, last in ((self.row, self.owner.shape[1]), (self.column, self.owner.shape[2]))
        )
        owner = self.owner[image[:, None, None], rows[:, :, None], columns[:, None, :]]
        mine = owner == torch.arange(self.computed, device=owner.device)[:, None, None]
        return mine if inside is None else mine & inside

    @cached_property
    def _overtaken(self) -> bool:
        """Whether finer tiles own cells under a computed tile: one kept from a coarser pass, then."""
        span = torch.ones_like(self.level) << self.level
        rows, columns = (
            torch.minimum(span, last - first)
            for first, last in ((self.row, self.owner.shape[1]), (self.column, self.owner.shape[2]))
        )
        owned = torch.bincount(self.owner[self.owner >= 0], minlength=len(self))
        return bool((owned < rows * columns)[: self.computed].any())

    def halo_table(self, side: int, halo: Halo) -> HaloTable:
        """Tell where every borrowed sample comes from. Built once, then shared by all layers of a scale.

        Returns:
            Rows into tiles of [B, side, side] samples, for tiles of
            [computed, top + side + bottom, left + side + right] samples.
        """
        key = (side, halo)
        if key not in self._tables:
            self._tables[key] = _halo_table(self, side, halo)
        return self._tables[key]

    def _interior(self, side: int) -> tuple[Tensor, Tensor]:
        """Mark which rows [B, side] and columns [B, side] of the computed tiles lie in the image."""
        within = torch.arange(side, device=self.row.device)
        level = self.level[: self.computed]
        marks = []
        for first, axis in ((self.row, 0), (self.column, 1)):
            start = (first[: self.computed] * side) >> level
            unit = (self.tile // side) << level
            marks.append((start[:, None] + within) * unit[:, None] < self.size[axis])
        return marks[0], marks[1]


def _halo_table(layout: Layout, side: int, halo: Halo) -> HaloTable:
    tile, row, column = _borrowed(layout, side, halo)
    level, image = layout.level[tile], layout.image[tile]
    height, width = halo.top + side + halo.bottom, halo.left + side + halo.right
    destination = (tile * height + row) * width + column
    y = ((layout.row[tile] * side) >> level) + row - halo.top
    x = ((layout.column[tile] * side) >> level) + column - halo.left
    unit = (layout.tile // side) << level
    last_y = (layout.size[0] - 1) // unit
    last_x = (layout.size[1] - 1) // unit
    if halo.fill == "edge":
        y, x = torch.minimum(y.clamp(min=0), last_y), torch.minimum(x.clamp(min=0), last_x)
    inside = (y >= 0) & (x >= 0) & (y <= last_y) & (x <= last_x)
    source = torch.full_like(destination, UNKNOWN)
    source[inside] = _source(layout, side, image[inside], level[inside], y[inside], x[inside])
    if layout.borders == "zero":
        source[(source != UNKNOWN) & (source // side**2 != tile)] = FINER
    finer = (source == FINER).nonzero().squeeze(1)
    seen = finer[:0] if layout.borders == "zero" else finer  # an average over nothing is 0
    number, parts, shares = _average(layout, side, image[seen], level[seen], y[seen], x[seen])
    border = layout.computed * side * side
    own, kept = (source >= 0) & (source < border), source >= border
    fresh = parts < border
    return HaloTable(
        own=torch.stack([destination[own], source[own]]),
        kept=torch.stack([destination[kept], source[kept] - border]),
        mean=destination[finer],
        own_parts=torch.stack([number[fresh], parts[fresh]]),
        own_shares=shares[fresh],
        kept_parts=torch.stack([number[~fresh], parts[~fresh] - border]),
        kept_shares=shares[~fresh],
        outside=destination[source == UNKNOWN],
    )


UNKNOWN, FINER = -1, -2


def _borrowed(layout: Layout, side: int, halo: Halo) -> tuple[Tensor, Tensor, Tensor]:
    """List the samples (tile, row, column in the bordered tile) that are not the tile's own.

    Those are the border, what hangs over the edge of the image, and what finer tiles have taken over.
    """
    device = layout.row.device
    rim = torch.ones(halo.top + side + halo.bottom, halo.left + side + halo.right, dtype=torch.bool)
    rim[halo.top : halo.top + side, halo.left : halo.left + side] = False
    row, column = rim.to(device).nonzero().unbind(1)
    tile = torch.arange(layout.computed, device=device).repeat_interleave(len(row))
    row, column = row.repeat(layout.computed), column.repeat(layout.computed)
    held = layout.held(side)
    if held is None:
        return tile, row, column
    over = (~held).nonzero()
    return (
        torch.cat([tile, over[:, 0]]),
        torch.cat([row, over[:, 1] + halo.top]),
        torch.cat([column, over[:, 2] + halo.left]),
    )


def _source(layout: Layout, side: int, image: Tensor, level: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Find the sample row that holds coordinates of a level, FINER if an average does, or UNKNOWN."""
    tile = layout.owner[image, (y << level) // side, (x << level) // side]
    held = layout.level[tile]
    coarser, finer = (held - level).clamp(min=0), (level - held).clamp(min=0)
    row = (y >> coarser << finer) - ((layout.row[tile] * side) >> held)
    column = (x >> coarser << finer) - ((layout.column[tile] * side) >> held)
    source = (tile * side + row) * side + column
    if layout.borders != "strided":  # which takes the first sample
        source = torch.where(held < level, FINER, source)
    return torch.where(tile < 0, UNKNOWN, source)


def _average(
    layout: Layout, side: int, image: Tensor, level: Tensor, y: Tensor, x: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Write samples of finer tiles as averages: the mean of the four samples one level finer, and so on.

    Returns:
        Number of the average, source row and share of every part.
    """
    number = torch.arange(len(y), device=y.device)
    share = torch.ones(len(y), device=y.device, dtype=torch.float64)
    found: list[tuple[Tensor, Tensor, Tensor]] = [(number[:0], number[:0], share[:0])]
    while len(number):
        level = (level - 1).repeat_interleave(4)
        number, image = number.repeat_interleave(4), image.repeat_interleave(4)
        y = (2 * y[:, None] + torch.tensor([0, 0, 1, 1], device=y.device)).flatten()
        x = (2 * x[:, None] + torch.tensor([0, 1, 0, 1], device=x.device)).flatten()
        unit = (layout.tile // side) << level
        inside = (y * unit < layout.size[0]) & (x * unit < layout.size[1])
        share = share.repeat_interleave(4) / inside.view(-1, 4).sum(1).repeat_interleave(4)
        number, image, level, y, x, share = (v[inside] for v in (number, image, level, y, x, share))
        source = _source(layout, side, image, level, y, x)
        done, finer = source >= 0, source == FINER
        found.append((number[done], source[done], share[done]))
        number, image, level, y, x, share = (v[finer] for v in (number, image, level, y, x, share))
    numbers, sources, shares = (torch.cat(parts) for parts in zip(*found, strict=True))
    return numbers, sources, shares
