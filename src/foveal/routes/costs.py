"""What the parts of a lattice cost on an image: multiply-accumulates, bilinear enlargement included.

Sums of whole numbers, equal to what `foveal.cost.count_macs` counts while the same parts run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from foveal.models.lattice import SCALES, WAYS, LatticeShape
from foveal.routes.route import Route

BILINEAR = 4
"""MACs of a sample that is interpolated."""
SHRUNK = 4
"""A small gate looks at a map whose sides are divided by this."""
Size = tuple[int, int]


@dataclass(frozen=True)
class LatticeCosts:
    """MACs of every part of a lattice on one image [MAC].

    Attributes:
        shape: Which cells and paths there are.
        size: Height and width of the image [px].
        in_channels: Channels of the image.
        small_gates: Whether gates look at reduced maps.
    """

    shape: LatticeShape
    size: Size
    in_channels: int = 3
    small_gates: bool = True

    @cached_property
    def sides(self) -> tuple[Size, ...]:
        """Height and width of the maps of every scale [samples]."""
        found = [_half(_half(self.size))]
        while len(found) < SCALES:
            found.append(_half(found[-1]))
        return tuple(found)

    @cached_property
    def stem(self) -> int:
        """Of the stem."""
        width, half = self.shape.width, _samples(_half(self.size))
        separable = 9 * width + width**2
        return (9 * self.in_channels * width + separable) * half + separable * self._samples(0)

    def body(self, scale: int) -> int:
        """Of what a cell computes."""
        channels = self.shape.channels(scale)
        return 2 * (9 * channels + channels**2) * self._samples(scale)

    def way(self, way: str, scale: int) -> int:
        """Of the transform of a path out of a cell."""
        if way == "keep":
            return 0
        channels = self.shape.channels(scale)
        if way == "down":
            return 2 * channels**2 * self._samples(scale + 1)
        return self._halved(scale)

    def gate(self, layer: int, scale: int) -> int:
        """Of the gate of a cell, its reduced map included."""
        channels, samples = self.shape.channels(scale), self._samples(scale)
        reduced = 0
        if self.small_gates:
            samples = _samples(shrunk(self.sides[scale]))
            reduced = BILINEAR * channels * samples
        return reduced + (channels // 2) * (channels * samples + len(self.shape.ways(layer, scale)))

    def unit(self, scale: int) -> int:
        """Of the decoder at a scale."""
        return self._halved(scale) if scale else self.shape.width**2 * self._samples(0)

    @cached_property
    def classify(self) -> int:
        """Of the classifier."""
        return 9 * self.shape.width * self.shape.classes * self._samples(0)

    def decoder(self, coarsest: int) -> int:
        """Of decoder and classifier, from the coarsest scale that arrives."""
        return sum(self.unit(scale) for scale in range(coarsest + 1)) + self.classify

    def cell(self, layer: int, scale: int, ways: Iterable[str] | None = None) -> int:
        """Of a cell and some paths out of it, all if none are named; nothing without a path."""
        chosen = self.shape.ways(layer, scale) if ways is None else tuple(ways)
        return self.body(scale) + sum(self.way(way, scale) for way in chosen) if chosen else 0

    @cached_property
    def dense(self) -> int:
        """Of the whole lattice, every path open and no gate asked."""
        return self.stem + sum(self.cell(*cell) for cell in self.shape.cells) + self.decoder(SCALES - 1)

    @cached_property
    def least(self) -> int:
        """Of stem and decoder, all cells handing on what they are given."""
        return self.stem + self.decoder(0)

    @cached_property
    def routed(self) -> int:
        """Of what gates decide about: all cells, the initial one included, and all paths."""
        return sum(self.cell(*cell) for cell in self.shape.cells)

    def of(self, route: Route, asked: Iterable[tuple[int, int]] = ()) -> int:
        """Of a route.

        Args:
            route: Which cells compute, and which paths are open.
            asked: Cells whose gates are asked.
        """
        cells = sum(self.cell(*cell, route.open_ways(*cell)) for cell in route.computed)
        gates = sum(self.gate(*cell) for cell in asked)
        return self.stem + cells + gates + self.decoder(max(route.ends))

    def work(self, route: Route) -> float:
        """Return the share of the dense lattice's MACs that a fixed route takes."""
        return self.of(route) / self.dense

    def _halved(self, scale: int) -> int:
        """Of half the channels by a 1x1 convolution, enlarged twofold."""
        channels, samples = self.shape.channels(scale), self._samples(scale)
        return (channels // 2) * samples * (channels + BILINEAR * 4)

    def _samples(self, scale: int) -> int:
        return _samples(self.sides[scale])


def shrunk(sides: Size) -> Size:
    """Return the sides of the map that a small gate looks at."""
    return max(1, sides[0] // SHRUNK), max(1, sides[1] // SHRUNK)


def ways_of(weights: Iterable[float]) -> tuple[str, ...]:
    """Name the paths whose weights are above 0."""
    return tuple(way for way, weight in zip(WAYS, weights, strict=False) if weight > 0)


def _half(sides: Size) -> Size:
    return -(-sides[0] // 2), -(-sides[1] // 2)


def _samples(sides: Size) -> int:
    return sides[0] * sides[1]
