"""Collects the maps, steps and numbers of a program while a network is compiled."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from foveal.program.sides import OWN, Sides
from foveal.program.spec import BINS, NUMBER_FIELDS, TILED, VERSION, Head, MapSpec, StepSpec

ALIGNED = 16
"""Numbers of a tensor start at multiples of this many floats."""


class NotCompiled(ValueError):
    """A network with an operation that no step can express; the message names it."""


@dataclass(frozen=True)
class Tables:
    """A finished program as plain memory, ready for native code or a file.

    Attributes:
        head: How many there are of what.
        maps: Array of `MapSpec`.
        steps: Array of `StepSpec`.
        numbers: Weights and other floats, one after the other.
        names: What every step came from.
    """

    head: Head
    maps: ctypes.Array[MapSpec]
    steps: ctypes.Array[StepSpec]
    numbers: np.ndarray[Any, np.dtype[np.float32]]
    names: tuple[str, ...]


@dataclass
class Builder:
    """A program in the making."""

    maps: list[MapSpec] = field(default_factory=list)
    steps: list[StepSpec] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    _numbers: list[np.ndarray[Any, Any]] = field(default_factory=list)
    _count: int = 0

    def add_map(
        self,
        channels: int,
        stride: int,
        kind: int = TILED,
        grid: int = 0,
        columns: int = 0,
        sides: Sides = OWN,
    ) -> int:
        """Add a map and return its number."""
        rule = sides.up, sides.down, sides.more, sides.least
        self.maps.append(MapSpec(kind, channels, stride, 0, grid, 1.0, 0, columns, *rule))
        return len(self.maps) - 1

    def add_like(self, given: int, channels: int | None = None, stride: int = 1) -> int:
        """Add a map as a given one, with other channels or behind windows that are `stride` samples apart.

        Raises:
            NotCompiled: It is no map of the image, and windows are too far apart.
        """
        m, sides = self.maps[given], self.sides(given).windowed(stride)
        if sides is None or (stride > 1 and m.kind == BINS):
            raise NotCompiled(f"windows {stride} samples apart look at too small a map")
        within = stride if m.kind == TILED else 1
        rule = OWN if m.kind == TILED else sides
        return self.add_map(channels or m.channels, m.stride * within, m.kind, m.grid, m.columns, rule)

    def sides(self, number: int) -> Sides:
        """Return the sides of a map, those of the image at its stride but for whole maps of other sides."""
        m = self.maps[number]
        return Sides(m.up, m.down, m.more, m.least)

    def add_numbers(self, values: Any) -> int:
        """Store floats and return their offset; -1 for None."""
        if values is None:
            return -1
        flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
        at = self._count
        flat = np.pad(flat, (0, -len(flat) % ALIGNED))
        self._numbers.append(flat)
        self._count += len(flat)
        return at

    def add_step(self, name: str, kind: int, given: int, out: int, **fields: Any) -> None:
        """Add a step from map `given` to map `out`; what is not named has no effect."""
        step = StepSpec(kind, given, -1, out, 1, 1, 1, 1)
        step.factor, step.low, step.high = 1, -math.inf, math.inf
        step.before_low, step.before_high = -math.inf, math.inf
        for field_name in NUMBER_FIELDS:
            setattr(step, field_name, -1)
        for field_name, value in fields.items():
            setattr(step, field_name, value)
        self.steps.append(step)
        self.names.append(name)

    def finish(self, given: int, out: int, classes: int, colours: int, multiple: int = 1) -> Tables:
        """Return the tables of the program from images in map `given` to the logits in map `out`.

        Sides of the images must be multiples of `multiple` [px].
        """
        coarsest = max(m.stride for m in self.maps)
        head = Head(
            VERSION, len(self.maps), len(self.steps), given, out, classes, coarsest, colours, multiple
        )
        numbers = np.concatenate([*self._numbers, np.zeros(ALIGNED, np.float32)])
        maps, steps = (MapSpec * len(self.maps))(*self.maps), (StepSpec * len(self.steps))(*self.steps)
        return Tables(head, maps, steps, numbers, tuple(self.names))
