"""What an earlier pass or frame computed, kept so that skipped tiles can be read.

While a network runs on tiles, every operation that looks beyond a tile records the tiles it was given. The
next run with that memory reads skipped places from there, provided that it takes the same path: operation,
stride and channels of every record are checked.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from foveal.geometry.layout import Layout


class NetworkChanged(ValueError):
    """A run with memory took another path through the network than the run that left the memory."""


@dataclass(frozen=True)
class Record:
    """Tiles that one operation was given.

    Attributes:
        operation: Its name.
        tiles: [B, C, side, side].
    """

    operation: str
    tiles: Tensor

    def describe(self) -> str:
        """Name the operation, its channels and the side of its tiles."""
        return f"{self.operation} of {self.tiles.shape[1]} channels, {self.tiles.shape[2]} samples a side"


@dataclass(frozen=True)
class Memory:
    """Features of earlier passes or frames.

    Attributes:
        layout: Which tile holds which cell.
        records: The tiles of every operation that looked beyond its tile, in order.
    """

    layout: Layout
    records: tuple[Record, ...] = field(repr=False)

    @property
    def bytes(self) -> int:
        """Memory that the records take [B]."""
        return sum(r.tiles.numel() * r.tiles.element_size() for r in self.records)


class Tape:
    """Memory access of one pass: returns kept tiles, and records new ones."""

    def __init__(
        self, layout: Layout, memory: Memory | None, chosen: Tensor | None, record: bool = True
    ) -> None:
        self.layout = layout
        self._record = record
        self._calls = 0
        self._memory = memory
        self._chosen = chosen
        self._records: list[Record] = []

    def exchange(self, operation: str, tiles: Tensor) -> Tensor | None:
        """Record the tiles of an operation, if wanted, and return those kept from before, if any.

        Raises:
            NetworkChanged: The memory holds another operation here.
        """
        record = Record(operation, tiles)
        kept = self._kept(record)
        self._calls += 1
        if self._record:
            pool = tiles if kept is None else torch.cat([tiles, kept])
            self._records.append(Record(operation, pool))
        return kept

    def _kept(self, record: Record) -> Tensor | None:
        if self._memory is None or self._chosen is None:
            return None
        place = self._calls
        if place >= len(self._memory.records):
            raise NetworkChanged(f"call {place} is {record.describe()}, the memory ends before; start anew")
        before = self._memory.records[place]
        if before.describe() != record.describe():
            raise NetworkChanged(
                f"call {place} was {before.describe()}, now {record.describe()}; the network took another "
                "path, start anew without the memory"
            )
        return before.tiles[self._chosen]

    def memory(self, attached: bool = False) -> Memory | None:
        """Everything known after the pass; None if nothing was recorded.

        Args:
            attached: Whether gradients flow back into the pass that recorded it.
        """
        if not self._record:
            return None
        records = (
            self._records if attached else [Record(r.operation, r.tiles.detach()) for r in self._records]
        )
        return Memory(self.layout.everything, tuple(records))


def join(layout: Layout, memory: Memory) -> tuple[Layout, Tensor]:
    """Let remembered tiles stand where a plan skips.

    Args:
        layout: Tiles computed now.
        memory: Tiles from before.

    Returns:
        The layout of both, computed tiles first, and which of the memory's tiles it keeps [B'].

    Raises:
        ValueError: The memory belongs to images of another size, number or tile.
    """
    before = memory.layout
    ours = (layout.size, layout.tile, layout.images)
    if ours != (before.size, before.tile, before.images):
        raise ValueError(
            f"the memory is of {before.images} images of {before.size} with tile {before.tile}, the plan is "
            f"for {layout.images} of {layout.size} with tile {layout.tile}; start anew without the memory"
        )
    skipped = layout.owner < 0
    stays = before.owner[skipped & (before.owner >= 0)].unique()
    number = torch.full((len(before) + 1,), -1, device=stays.device)
    number[stays] = torch.arange(len(stays), device=stays.device) + len(layout)
    owner = torch.where(skipped, number[before.owner], layout.owner)
    image, level, row, column = (
        torch.cat([now, then[stays]])
        for now, then in (
            (layout.image, before.image),
            (layout.level, before.level),
            (layout.row, before.row),
            (layout.column, before.column),
        )
    )
    return Layout(layout.size, layout.tile, image, level, row, column, owner, layout.computed), stays
