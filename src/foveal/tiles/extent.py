"""Sides of maps: numbers that remember which map they are of.

A dense network is given an image at its finest level, so the sides of its maps are those at that level. In a
batch of images that differ in it, a side is several numbers: it counts as the one of the finest level of all,
and a module that runs dense on the others is given theirs. A side also knows the tiles of its map: maps of
small images have the same sides at several strides.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch


class Extent(int):
    """Side of a map at a level, and what it is at others; sums, products and quotients keep that.

    Attributes:
        at: Finest level of an image -> side there [samples].
        tile: Samples on a tile's side of the map that has this side; a hint, as far as can be told.
    """

    at: Mapping[int, int]
    tile: float

    def __new__(cls, at: Mapping[int, int], tile: float) -> Extent:
        """Make the number, the one at the finest level."""
        self = super().__new__(cls, at[min(at)])
        self.at, self.tile = at, tile
        return self

    def __getnewargs__(self) -> tuple[Mapping[int, int], float]:  # type: ignore[override]
        """Return what a copy is made of."""
        return self.at, self.tile

    def __neg__(self) -> Extent:
        """Return what `-h % 32` needs."""
        return Extent({level: -side for level, side in self.at.items()}, self.tile)


def _operator(name: str, swapped: bool) -> Callable[[Extent, Any], Any]:
    apply = getattr(operator, name)

    def run(self: Extent, other: Any) -> Any:
        if not isinstance(other, int):
            return NotImplemented
        theirs = other.at if isinstance(other, Extent) else dict.fromkeys(self.at, other)
        pairs = {level: (side, theirs[level]) for level, side in self.at.items()}
        found = {level: apply(b, a) if swapped else apply(a, b) for level, (a, b) in pairs.items()}
        scale = {"mul": float(other), "floordiv": 1 / other if other else 1.0}.get(name, 1.0)
        return Extent(found, self.tile * scale)

    return run


for _name in ("add", "sub", "mul", "floordiv", "mod"):
    setattr(Extent, f"__{_name}__", _operator(_name, False))
    setattr(Extent, f"__r{_name}__", _operator(_name, True))


def at_level(level: int, value: Any) -> Any:
    """Give the number that a side is at a level, also within a shape; anything else stays."""
    if isinstance(value, torch.Size):
        return torch.Size(at_level(level, side) for side in value)
    return value.at[level] if isinstance(value, Extent) else value


def tile_sides(values: list[Any]) -> list[int]:
    """List the sides of tiles that numbers or shapes among some values hint at."""
    flat = [n for value in values for n in (value if isinstance(value, torch.Size) else [value])]
    return [int(n.tile) for n in flat if isinstance(n, Extent) and n.tile == int(n.tile)]
