"""A program that runs in parts: some of its steps at a time, on tiles that may be others in the next part."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import fx

from foveal.program.builder import NotCompiled
from foveal.program.cells import checked_cells
from foveal.program.graph import Graph
from foveal.program.run import Array, Program, usable_threads
from foveal.program.spec import TILED, Request

PART = 5
"""Number of the method that runs some steps."""


@dataclass(frozen=True)
class Part:
    """Some steps of a program, one behind the other.

    Attributes:
        first: The first of them.
        last: The one behind the last of them.
        given: Maps that they read and earlier parts made: number by name.
        made: Maps that they make and later parts or others read: number by name.
    """

    first: int
    last: int
    given: Mapping[str, int]
    made: Mapping[str, int]


@dataclass(frozen=True)
class Cells:
    """Where a part runs: whole images, or the tiles of a plan.

    Attributes:
        images: Number of images N.
        size: Their height and width [px].
        tile: Side of a tile [px].
        levels: Level per cell [N, Gh, Gw], int8; -1 where nothing is computed. None for whole images.
        tiles: Number of tiles of the plan.
    """

    images: int
    size: tuple[int, int]
    tile: int
    levels: Array | None = None
    tiles: int = 0


class PartedProgram:
    """A program, and where it may stop and go on.

    Attributes:
        program: All of its steps.
        parts: In order.
    """

    def __init__(self, program: Program, parts: Sequence[Part]) -> None:
        self.program, self.parts = program, tuple(parts)

    @property
    def coarsest_stride(self) -> int:
        """Pixels that a tile must be a multiple of."""
        return int(self.program.tables.head.coarsest_stride)

    def run(
        self,
        part: int,
        cells: Cells,
        given: Mapping[str, Array],
        threads: int | None = None,
    ) -> tuple[dict[str, Array], int]:
        """Run a part.

        Args:
            part: Its number.
            cells: Where it runs.
            given: The maps that it reads by name, the images in 0..1 among them, float32: tiles [tiles, side,
                side, channels] in the order of the plan, or of whole images [N, h, w, channels].
            threads: Threads of this run; as many as the process may use if absent.

        Returns:
            What it made, as `given`; and its multiply-accumulates [MAC].

        Raises:
            ValueError: A map has another shape, or something is missing.
            MemoryError: There is no memory.
        """
        asked, steps = Request(), self.parts[part]
        asked.images, (asked.height, asked.width) = cells.images, cells.size
        keep: list[Any] = []
        asked.method, asked.tile, asked.gains, asked.budget = PART, cells.tile, 1, 1.0
        asked.threads = threads or usable_threads()
        asked.first_step, asked.last_step = steps.first, steps.last
        work = np.zeros(cells.images)
        asked.work = work.ctypes.data
        if cells.levels is not None:
            shape = cells.images, *(-(-side // cells.tile) for side in cells.size)
            keep.append(checked_cells("plan", cells.levels, shape, np.int8))
            asked.plan = keep[-1].ctypes.data
        read = {name: self._checked(name, number, given, cells) for name, number in steps.given.items()}
        made = {name: np.empty(self._shape(number, cells), np.float32) for name, number in steps.made.items()}
        asked.given = self._addresses({steps.given[name]: array for name, array in read.items()}, keep)
        asked.taken = self._addresses({steps.made[name]: array for name, array in made.items()}, keep)
        self.program.call(asked)
        return made, int(asked.macs)

    def _shape(self, number: int, cells: Cells) -> tuple[int, ...]:
        spec = self.program.tables.maps[number]
        if cells.levels is None:
            return cells.images, *(-(-side // spec.stride) for side in cells.size), spec.channels
        side = cells.tile // spec.stride
        return cells.tiles, side, side, spec.channels

    def _checked(self, name: str, number: int, given: Mapping[str, Array], cells: Cells) -> Array:
        array, shape = given.get(name), self._shape(number, cells)
        if array is None or array.shape != shape or array.dtype != np.float32:
            have = "nothing" if array is None else f"{array.dtype} {list(array.shape)}"
            raise ValueError(f"map {name} must be float32 {list(shape)}; given {have}")
        return np.ascontiguousarray(array)

    def _addresses(self, arrays: Mapping[int, Array], keep: list[Any]) -> int:
        """Return where native code finds the addresses of maps, which `keep` holds on to."""
        table = (ctypes.c_void_p * len(self.program.tables.maps))()
        for number, array in arrays.items():
            table[number] = array.ctypes.data
        keep += [table, *arrays.values()]
        return ctypes.addressof(table)


@dataclass(frozen=True)
class Cut:
    """Where a graph may stop: behind a node, when others are kept.

    Attributes:
        after: Name of the node.
        kept: Names of the nodes whose maps are read later, or by others; with what those call them.
    """

    after: str
    kept: Mapping[str, str]


def compile_parts(
    traced: fx.GraphModule, cuts: Sequence[Cut], dense_modules: tuple[str, ...], multiple: int, channels: int
) -> PartedProgram:
    """Compile a graph of joined layers to be run in parts.

    Args:
        traced: The graph; its output is the last map.
        cuts: Where it may stop, in order; the last one is its end.
        dense_modules: Submodules that need the whole map, by name.
        multiple: Sides of images must be multiples of it [px].
        channels: Of the images.

    Raises:
        NotCompiled: An operation has no step, or what is kept is no map of the image.
    """
    graph = _Parted(traced, cuts, dense_modules, multiple, channels)
    program = Program(graph.compile())
    return PartedProgram(program, graph.parts)


class _Parted(Graph):
    """Adds the steps of a graph, and notes where parts end and which maps they leave."""

    def __init__(
        self,
        traced: fx.GraphModule,
        cuts: Sequence[Cut],
        dense_modules: tuple[str, ...],
        multiple: int,
        channels: int,
    ) -> None:
        super().__init__(traced, dense_modules, multiple, channels)
        self.parts: list[Part] = []
        self._cuts = {cut.after: cut for cut in cuts}
        self._nodes = {node.name: node for node in traced.graph.nodes}
        image = next(node for node in traced.graph.nodes if node.op == "placeholder")
        self._left, self._image = {image.name: 0}, image

    def passed(self, node: fx.Node) -> None:
        """Note the end of a part: its maps in the order and with the channels that later steps read."""
        cut = self._cuts.get(node.name)
        if cut is None:
            return
        before = self._left | {self._image.name: self.values[self._image].map}
        left = {said: self._kept(name) for name, said in cut.kept.items()}
        first, last = self.parts[-1].last if self.parts else 0, len(self.builder.steps)
        steps = self.builder.steps[first:last]
        read = {s.input for s in steps} | {s.other for s in steps if s.other >= 0}
        given = {said: number for said, number in before.items() if number in read}
        unknown = read - {s.out for s in steps} - set(given.values())
        if unknown:
            raise NotCompiled(f"the part up to '{cut.after}' reads a map that no earlier part leaves")
        made = {said: number for said, number in left.items() if before.get(said) != number}
        self.parts.append(Part(first, last, given, made))
        self._left = left

    def _kept(self, name: str) -> int:
        number = self.map(self._nodes[name], f"'{name}', which a later part reads,")
        if self.builder.maps[number].kind != TILED:
            raise NotCompiled(f"'{name}', which a later part reads, is no map of the image")
        return number
