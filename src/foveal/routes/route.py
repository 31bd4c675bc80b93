"""A route through a lattice: the weight of every path for one image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from foveal.models.lattice import FEWEST, MOST, SCALES, WAYS, LatticeShape, Weights

CLOSED = 1e-4
"""Weight from which a path is open, and sum of the weights of a cell from which it computes; the paper.s
public code has this number for zero."""


@dataclass(frozen=True)
class Route:
    """Weights of paths; a cell whose paths are all closed hands its input on as it is.

    So whatever arrives at a cell arrives at the decoder, and no cell computes what nobody reads. Cells that
    nothing arrives at compute nothing.

    Attributes:
        weights: Per layer, from 0 for the initial cell, per scale and per way (up, keep, down); 0 is closed.

    Raises:
        ValueError: Weights are no numbers of at least 0, or there are no such paths.
    """

    weights: Weights

    def __post_init__(self) -> None:
        layers = len(self.weights) - 1
        if not FEWEST <= layers <= MOST:
            raise ValueError(f"a route has {FEWEST + 1} to {MOST + 1} layers, the initial cell's among them")
        shape = LatticeShape(layers, 2, 1)
        for layer, cells in enumerate(self.weights):
            if len(cells) != SCALES or any(len(cell) != len(WAYS) for cell in cells):
                raise ValueError(f"layer {layer} of a route needs {SCALES} scales of {len(WAYS)} weights")
            for scale, cell in enumerate(cells):
                there = shape.ways(layer, scale) if scale < shape.scales(layer) else ()
                for way, weight in zip(WAYS, cell, strict=True):
                    self._check(layer, scale, way, weight, way in there)

    @staticmethod
    def _check(layer: int, scale: int, way: str, weight: float, there: bool) -> None:
        place = f"{way} of layer {layer} at stride {4 << scale}"
        if not isinstance(weight, float | int) or not 0 <= weight < math.inf:
            raise ValueError(f"the weight of {place} is {weight!r}; give a number of at least 0")
        if weight and not there:
            raise ValueError(f"the weight of {place} is {weight:g}, and there is no such path; give 0")

    @classmethod
    def of(cls, layers: int, cells: Mapping[tuple[int, int], Sequence[float]]) -> Route:
        """Make a route from the cells that have open paths; all others are closed.

        Args:
            layers: Layers after the initial cell.
            cells: Weights (up, keep, down) by layer and scale; those below `CLOSED` become 0.
        """
        closed = (0.0,) * len(WAYS)
        found = {
            cell: tuple(float(w) if w >= CLOSED else 0.0 for w in weights) for cell, weights in cells.items()
        }
        return cls(
            tuple(
                tuple(found.get((layer, scale), closed) for scale in range(SCALES))
                for layer in range(layers + 1)
            )
        )

    @classmethod
    def all_open(cls, layers: int) -> Route:
        """Return the route of a lattice in which every path is open."""
        weights = LatticeShape(layers, 2, 1).all_open
        return cls(tuple(tuple(cell[: len(WAYS)] for cell in cells) for cells in weights))

    @classmethod
    def from_json(cls, given: Any) -> Route:
        """Read what `as_json` returned.

        Raises:
            ValueError: It is something else, or no route.
        """
        weights = given.get("weights") if isinstance(given, Mapping) else None
        if not isinstance(weights, list) or not all(
            isinstance(cells, list) and all(isinstance(cell, list) for cell in cells) for cells in weights
        ):
            raise ValueError('a route is {"weights": [layers of [scales of [up, keep, down]]]}')
        return cls(tuple(tuple(tuple(cell) for cell in cells) for cells in weights))

    def as_json(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {"weights": [[list(cell) for cell in cells] for cells in self.weights]}

    @property
    def layers(self) -> int:
        """Layers after the initial cell."""
        return len(self.weights) - 1

    def open_ways(self, layer: int, scale: int) -> tuple[str, ...]:
        """Return the open paths out of a cell."""
        return tuple(way for way, w in zip(WAYS, self.weights[layer][scale], strict=True) if w >= CLOSED)

    @cached_property
    def reached(self) -> tuple[tuple[int, int], ...]:
        """Layer and scale of every cell that something arrives at, in the order in which they run."""
        found, here = [], {0}
        for layer in range(self.layers + 1):
            found += [(layer, scale) for scale in sorted(here)]
            here = {to for scale in here for to in self._targets(layer, scale)}
        return tuple(found)

    @cached_property
    def computed(self) -> tuple[tuple[int, int], ...]:
        """Layer and scale of every cell that computes."""
        return tuple(cell for cell in self.reached if self.open_ways(*cell))

    @property
    def ends(self) -> tuple[int, ...]:
        """Scales that arrive at the decoder."""
        return tuple(scale for layer, scale in self.reached if layer == self.layers)

    @property
    def open_paths(self) -> int:
        """Count the open paths out of cells that something arrives at."""
        return sum(len(self.open_ways(*cell)) for cell in self.reached)

    def with_weights(self, weights: Weights) -> Route:
        """Return the same paths with other weights, such as the usual ones of a network."""
        return Route.of(
            self.layers,
            {
                (layer, scale): [
                    given if own else 0.0
                    for own, given in zip(self.weights[layer][scale], weights[layer][scale], strict=False)
                ]
                for layer, scale in self.reached
            },
        )

    def _targets(self, layer: int, scale: int) -> list[int]:
        step = {"up": -1, "keep": 0, "down": 1}
        return [scale + step[way] for way in self.open_ways(layer, scale)] or [scale]
