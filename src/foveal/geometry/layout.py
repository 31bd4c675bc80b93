"""Position of every tile: the geometry that operations work from.

The image is covered by a grid of finest cells of `tile` x `tile` pixels. A tile at level l covers an
aligned square of 2^l x 2^l cells and holds `side` x `side` samples at a stride, whatever its level.
A *coordinate* is a sample's row or column counted over the whole image at its own level and stride; the
sample covers `stride * 2^l` pixels, and belongs to the image if its first pixel does. So the extent of the
image is ceil(size / (stride * 2^l)), which is the size of the map that a dense network has there.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import torch
from torch import Tensor

T = TypeVar("T")
Fill = Literal["zero", "lowest", "edge"]
Borders = Literal["average", "strided", "zero"]
BORDERS: tuple[Borders, ...] = get_args(Borders)
"""Value of a sample of another tile where a finer tile holds it: the mean of the samples it stands for,
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


@dataclass(frozen=True, eq=False)
class Layout:
    """Place and level of every tile of a batch of images.

    A layout lives on the CPU, wherever the tiles are: it decides what runs. What a device needs of it is
    moved there once by an explicit call (`image_on`, `inside`, `halo_table`, ...) and kept.

    Attributes:
        size: Height and width of the images [px].
        tile: Side of a level-0 tile, which is the side of a cell [px].
        image: Image that a tile belongs to [B].
        level: Level of a tile [B].
        row: Row of a tile's first cell [B].
        column: Column of a tile's first cell [B].
        owner: Tile that holds a cell [N, Gh, Gw]; -1 where nothing is known.
        computed: How many tiles are computed now. They come first; the others were kept from before.
        borders: Values of the samples of other tiles.

    Raises:
        ValueError: The tensors are on another device than the CPU.
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
    _tables: dict[Hashable, tuple[Callable[[Layout], Any], Any]] = field(
        init=False, default_factory=dict, repr=False
    )

    def __post_init__(self) -> None:
        if self.owner.device.type != "cpu":
            raise ValueError(
                f"a layout is on {self.owner.device}; layouts live on the CPU, move its tensors there"
            )

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

    def table(self, key: Hashable, build: Callable[[Layout], T]) -> T:
        """Return what follows from the layout alone, built once and shared by all that ask for it.

        Args:
            key: Name of the table and all that it depends on besides the layout, such as ("halo", 8, halo).
            build: Makes the table from a layout. It knows the layout by its argument only, so that
                `rebuild_tables` can use it for another one.
        """
        if key not in self._tables:
            self._tables[key] = build, build(self)
        value: T = self._tables[key][1]
        return value

    def rebuild_tables(self, other: Layout) -> None:
        """Build all the tables of another layout for this one, as a network would that runs on it next."""
        for key, (build, _) in list(other._tables.items()):
            self.table(key, build)

    @property
    def everything(self) -> Layout:
        """The same tiles, all taken as computed now."""
        if self.computed == len(self):
            return self
        return self.table("everything", lambda layout: replace(layout, computed=len(layout)))

    def with_borders(self, borders: Borders) -> Layout:
        """Return the same tiles with another rule for borders; always the same layout, so tables are shared.

        Raises:
            ValueError: There is no such rule.
        """
        if borders not in BORDERS:
            raise ValueError(f"there are no borders '{borders}'; give one of {', '.join(BORDERS)}")
        if borders == self.borders:
            return self
        return self.table(("borders", borders), lambda layout: replace(layout, borders=borders))

    def of_images(self, images: list[int]) -> tuple[Layout, Tensor]:
        """Restrict the layout to some images; return which tiles that leaves [B], too."""
        if len(images) == self.images:
            return self, torch.ones_like(self.image, dtype=torch.bool)
        return self.table(("images", *images), lambda layout: layout._of_images(images))

    def _of_images(self, images: list[int]) -> tuple[Layout, Tensor]:
        place = torch.full((self.images,), -1)
        place[images] = torch.arange(len(images))
        mask = place[self.image] >= 0
        number = torch.full((len(self) + 1,), -1)
        number[:-1][mask] = torch.arange(int(mask.sum()))
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

    def image_on(self, device: torch.device | str) -> Tensor:
        """Image that a tile belongs to [B], on a device."""
        return self.table(("image", str(device)), lambda layout: layout.image.to(device))

    def inside(self, side: int, device: torch.device | str = "cpu") -> Tensor | None:
        """Mark the samples [computed, side, side] that lie in the image, on a device; None if all do."""
        if torch.device(device).type == "cpu":
            return self.table(("inside", side), lambda layout: layout._inside(side))
        return self.table(("inside", side, str(device)), lambda layout: layout._moved_inside(side, device))

    def held(self, side: int) -> Tensor | None:
        """Mark the samples [computed, side, side] in the image that their tile owns; None if that is all."""
        return self.table(("held", side), lambda layout: layout._held(side))

    def _moved_inside(self, side: int, device: torch.device | str) -> Tensor | None:
        mask = self.inside(side)
        return None if mask is None else mask.to(device)

    def _inside(self, side: int) -> Tensor | None:
        rows, columns = self._interior(side)
        inside = rows[:, :, None] & columns[:, None, :]
        return None if bool(inside.all()) else inside

    def _held(self, side: int) -> Tensor | None:
        inside = self.inside(side)
        if not self.overtaken:
            return inside
        within = torch.arange(side)
        image, level = self.image[: self.computed], self.level[: self.computed, None]
        rows, columns = (
            ((((first[: self.computed, None] * side >> level) + within) << level) // side).clamp(max=last - 1)
            for first, last in ((self.row, self.owner.shape[1]), (self.column, self.owner.shape[2]))
        )
        owner = self.owner[image[:, None, None], rows[:, :, None], columns[:, None, :]]
        mine = owner == torch.arange(self.computed)[:, None, None]
        return mine if inside is None else mine & inside

    @cached_property
    def overtaken(self) -> bool:
        """Whether finer tiles own cells under a computed tile: one kept from a coarser pass, then."""
        span = torch.ones_like(self.level) << self.level
        rows, columns = (
            torch.minimum(span, last - first)
            for first, last in ((self.row, self.owner.shape[1]), (self.column, self.owner.shape[2]))
        )
        owned = torch.bincount(self.owner[self.owner >= 0], minlength=len(self))
        return bool((owned < rows * columns)[: self.computed].any())

    def _interior(self, side: int) -> tuple[Tensor, Tensor]:
        """Mark which rows [B, side] and columns [B, side] of the computed tiles lie in the image."""
        within = torch.arange(side)
        level = self.level[: self.computed]
        marks = []
        for first, axis in ((self.row, 0), (self.column, 1)):
            start = (first[: self.computed] * side) >> level
            unit = (self.tile // side) << level
            marks.append((start[:, None] + within) * unit[:, None] < self.size[axis])
        return marks[0], marks[1]
