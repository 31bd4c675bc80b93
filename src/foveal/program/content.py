"""What a stream holds, copied: to be looked at, kept in a file, or given to another stream."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from foveal.program.spec import StreamParts

Array = np.ndarray[Any, Any]
TYPES = {"f32": np.float32, "bf16": np.uint16, "u8": np.uint8}
"""How samples of a precision are held."""


class KeptMap(NamedTuple):
    """A map whose tiles are kept.

    Attributes:
        precision: "f32", "bf16" or "u8".
        side: Samples on the side of a tile.
        channels: Channels of a sample.
    """

    precision: str
    side: int
    channels: int


class Content(NamedTuple):
    """All that a stream holds after a frame, copied.

    Attributes:
        image: Video that a tile belongs to [B].
        level: Its level [B].
        row: Row of its first cell [B].
        column: Column of its first cell [B].
        owner: Tile that holds a cell [N, Gh, Gw].
        age: Frames since a cell was computed [N, Gh, Gw], int32.
        picture: Pixels that every cell was last computed from [N, C, H, W].
        logits: The last answer [N, h, w, K].
        maps: Tiles of every map that is kept, by its number [B, side, side, channels].
    """

    image: Array
    level: Array
    row: Array
    column: Array
    owner: Array
    age: Array
    picture: Array
    logits: Array
    maps: dict[int, Array]

    @classmethod
    def room(
        cls,
        tiles: int,
        cells: tuple[int, int, int],
        picture: tuple[int, ...],
        logits: tuple[int, ...],
        maps: Mapping[int, KeptMap],
    ) -> Content:
        """Make room for so many tiles, and for a picture and logits of these shapes."""
        return cls(
            image=np.empty(tiles, np.int64),
            level=np.empty(tiles, np.int64),
            row=np.empty(tiles, np.int64),
            column=np.empty(tiles, np.int64),
            owner=np.empty(cells, np.int64),
            age=np.empty(cells, np.int32),
            picture=np.empty(picture, np.float32),
            logits=np.empty(logits, np.float32),
            maps={
                number: np.empty((tiles, kept.side, kept.side, kept.channels), TYPES[kept.precision])
                for number, kept in maps.items()
            },
        )

    @property
    def arrays(self) -> list[Array]:
        """All arrays, those of the maps last."""
        return [*self[:-1], *self.maps.values()]

    def describe(self, parts: StreamParts, maps: int) -> Any:
        """Tell native code where everything lies; what is returned must live as long.

        Args:
            parts: What native code reads.
            maps: Number of maps of the program.
        """
        parts.tiles = len(self.image)
        for name in self._fields[:-1]:
            setattr(parts, name, getattr(self, name).ctypes.data)
        table = (ctypes.c_void_p * maps)()
        for number, tiles in self.maps.items():
            table[number] = tiles.ctypes.data
        parts.maps = ctypes.addressof(table) if self.maps else None
        return table
