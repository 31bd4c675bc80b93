"""Sides of maps in images that are coarse everywhere.

A dense network is given an image at its finest level, so the sides of its maps are those at that level. In a
batch of images that differ in it, a side is several numbers: it counts as the one of the finest level of all,
and a module that runs dense on the others is given theirs. The side at level 0 is kept too: small maps of
different strides often have the same sides.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch


class Extent(int):
    """Side of a map at a level, and what it is at others; sums, products and quotients keep that.

    Attributes:
        at: Level -> side there [samples].
        level: The one whose side counts as the number.
    """

    at: Mapping[int, int]
    level: int

    def __new__(cls, at: Mapping[int, int], level: int) -> Extent:
        """Make the number that counts."""
        self = super().__new__(cls, at[level])
        self.at, self.level = at, level
        return self

    def __neg__(self) -> Extent:
        """Return what `-h % 32` needs."""
        return Extent({level: -side for level, side in self.at.items()}, self.level)


def _operator(apply: Callable[[Any, Any], Any], swapped: bool) -> Callable[[Extent, Any], Any]:
    def run(self: Extent, other: Any) -> Any:
        if not isinstance(other, int):
            return NotImplemented
        theirs = other.at if isinstance(other, Extent) else dict.fromkeys(self.at, other)
        pairs = {level: (side, theirs[level]) for level, side in self.at.items()}
        found = {level: apply(b, a) if swapped else apply(a, b) for level, (a, b) in pairs.items()}
        return Extent(found, self.level)

    return run


for _name in ("add", "sub", "mul", "floordiv", "mod"):
    _apply = getattr(operator, _name)
    setattr(Extent, f"__{_name}__", _operator(_apply, False))
    setattr(Extent, f"__r{_name}__", _operator(_apply, True))


def at_level(level: int, value: Any) -> Any:
    """Give the number that a side is at a level, also within a shape; anything else stays."""
    if isinstance(value, torch.Size):
        return torch.Size(at_level(level, side) for side in value)
    return value.at[level] if isinstance(value, Extent) else value
