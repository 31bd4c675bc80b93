"""A video through a program: what is kept between its frames, in native memory of a fixed size.

Needs NumPy and the C kernels, not PyTorch.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from numbers import Integral
from typing import Any

import numpy as np

from foveal.program.asked import check_sides, threads_of
from foveal.program.cells import checked_cells
from foveal.program.content import Content, KeptMap
from foveal.program.images import as_array, take_image
from foveal.program.run import (
    PHASES,
    Array,
    Program,
    fill_request,
    usable_threads,
)
from foveal.program.settings import PlannedRun, ReuseRun
from foveal.program.spec import MORE_TIMES, PRECISIONS, TILED, Request, Reuse, StreamParts, native
from foveal.storage.given import need

A_SCENE_BEGINS = 1


class SceneBegins(Exception):
    """A scene begins in some of the frames, and nobody said what is computed of them then.

    Attributes:
        scenes: Which frames [N], bool. Nothing was computed, and the stream is as it was.
    """

    def __init__(self, scenes: Array) -> None:
        super().__init__("a scene begins; give the levels that are computed then")
        self.scenes = scenes


@dataclass(frozen=True, eq=False)
class FrameOfStream:
    """What a program says about the next frames of a stream.

    Attributes:
        labels: Class per pixel [N, H, W], uint8.
        levels: Level that every cell was computed at [N, Gh, Gw], int8; -1 where the answer was kept.
        work: Share of the dense work per frame [N].
        macs: Multiply-accumulates of the steps that ran [MAC].
        scenes: In which frames a scene begins [N], bool.
        relabelled: Pixels that were labelled anew.
        moved: Kept tiles that were moved for new ones.
        logits: [N, h, w, K] at the network's stride, if they were asked for.
        step_ms: Time per step and phase [ms], if it was asked for.
    """

    labels: Array
    levels: Array
    work: Array
    macs: int
    scenes: Array
    relabelled: int
    moved: int
    logits: Array | None = None
    step_ms: dict[str, float] = field(default_factory=dict)


class Stream:
    """What a program keeps between the frames of one video, or of several of one size.

    Its memory is taken when it is made and does not grow: a place for one tile per cell in every map that is
    read beyond a tile, the last answer, and the pixels that it was computed from. It is given back by
    `close`, or when nobody has the stream any more. Streams of one program may run in several threads at
    once; one stream runs in one thread at a time, and says so.

    Attributes:
        program: The program.
        size: Height and width of the frames [px].
        tile: Side of a tile [px].
        images: Number of videos N.
        frame: Counts the calls that changed it.

    Raises:
        ValueError: The tile is no multiple of the network's stride, or a frame has no pixels or too many.
        MemoryError: There is no memory.
    """

    def __init__(self, program: Program, size: tuple[int, int], tile: int = 32, images: int = 1) -> None:
        need(program, Program, "program", "what foveal.compile_network or load_program returns")
        for value, name in ((images, "images"), (tile, "tile")):
            need(value, Integral, name, "a whole number above 0")
        size = check_sides("size", size)
        error = ctypes.create_string_buffer(256)
        said = ctypes.addressof(error), len(error)
        given = int(images), *size, int(tile)
        if any(not 0 < value < 1 << 31 for value in given):
            raise ValueError(f"images, sides and tile are {given}; give whole numbers above 0")
        self._hold(native().foveal_stream_make(program.address, *given, *said), error.value.decode())
        self.program, self.size, self.tile, self.images, self.frame = program, size, tile, images, 0

    def _hold(self, address: int | None, error: str = "") -> None:
        if not address and error:
            raise ValueError(error)
        if address is None:
            raise MemoryError("a stream could not be made: there is no memory")
        self._address, self._lock = address, threading.Lock()
        self._free = weakref.finalize(self, native().foveal_stream_free, address)

    @contextmanager
    def used(self) -> Iterator[int]:
        """Yield where native code has it, for one user at a time.

        Raises:
            ValueError: Another thread uses it, or it was closed.
        """
        if not self._lock.acquire(blocking=False):
            raise ValueError("this stream runs in another thread; give every thread a stream of its own")
        try:
            if not self._free.alive:
                raise ValueError("the stream was closed; make another one")
            yield self._address
        finally:
            self._lock.release()

    @property
    def bytes(self) -> int:
        """Memory that it takes, whatever the frames show [B]; 0 once it is closed."""
        return int(native().foveal_stream_bytes(self._address)) if self._free.alive else 0

    @property
    def cells(self) -> tuple[int, int, int]:
        """Videos, and rows and columns of their cells."""
        return self.images, *(-(-side // self.tile) for side in self.size)  # type: ignore[return-value]

    def close(self) -> None:
        """Give the memory back, after a run that goes on; what follows is refused."""
        with self._lock:
            self._free()

    def copy(self) -> Stream:
        """Return another stream with the same content.

        Raises:
            ValueError: Another thread uses it, or it was closed.
            MemoryError: There is no memory.
        """
        made = Stream.__new__(Stream)
        with self.used() as address:
            made._hold(native().foveal_stream_copy(address))
        made.program, made.size, made.tile, made.images = self.program, self.size, self.tile, self.images
        made.frame = self.frame
        return made

    def run(
        self,
        image: Any,
        settings: PlannedRun | ReuseRun,
        first: Array | None = None,
        threads: int | None = None,
        logits: bool = False,
        profile: bool = False,
    ) -> FrameOfStream:
        """Segment the next frames.

        Args:
            image: [N, C, H, W] floats in 0..1, or [N, H, W, C] bytes; an array or a tensor on the CPU.
            settings: What is computed, -1 where the answer is kept; or how that is decided.
            first: Levels of frames that begin a scene [N, Gh, Gw], int8.
            threads: Threads of this run; as many as the process may use if absent.
            logits: Whether the logits are wanted.
            profile: Whether every step is timed.

        Raises:
            SceneBegins: A scene begins, and there are no levels for it.
            ValueError: Frames or levels have another shape or precision than they must, hold NaN, or the
                stream runs in another thread. If the frame was begun, the stream holds nothing any more.
            MemoryError: There is no memory.
        """
        need(settings, (PlannedRun, ReuseRun), "settings", "a PlannedRun or a ReuseRun")
        request, reuse, program = Request(), Reuse(), self.program
        keep = [take_image(request, as_array(image), program.channels)]
        fill_request(request, settings)
        if settings.tile != self.tile:
            raise ValueError(f"the plan has tiles of {settings.tile} px and the stream {self.tile}")
        request.threads = threads_of(threads) or usable_threads()
        for target, name, levels in (
            (request, "plan", getattr(settings, "levels", None)),
            (reuse, "first", first),
        ):
            if levels is not None:
                keep.append(checked_cells(name, levels, self.cells, np.int8))
                setattr(target, name, keep[-1].ctypes.data)
        if isinstance(settings, ReuseRun):
            for name in ("hysteresis", "noise", "clear", "unseen", "stale", "overdue", "max_age"):
                setattr(reuse, name, getattr(settings, name))
        scenes = np.zeros(self.images, np.uint8)
        reuse.scenes = scenes.ctypes.data
        out = {
            "labels": np.empty((self.images, *self.size), np.uint8),
            "levels": np.empty(self.cells, np.int8),
            "work": np.zeros(max(self.images, request.images)),
            "logits": np.empty(self._shape_of_logits, np.float32) if logits else None,
            "step_ms": np.zeros(len(program.tables.names) + MORE_TIMES) if profile else None,
        }
        for name, array in out.items():
            setattr(request, name, None if array is None else array.ctypes.data)
        self._call(request, reuse, scenes)
        times = out.pop("step_ms")
        names = (*program.tables.names, *PHASES)
        named = {} if times is None else dict(zip(names, times[: len(names)].tolist(), strict=True))
        return FrameOfStream(
            **out,  # type: ignore[arg-type]
            macs=request.macs,
            scenes=scenes.astype(bool),
            relabelled=reuse.relabelled,
            moved=reuse.moved,
            step_ms=named,
        )

    def _call(self, request: Request, reuse: Reuse, scenes: Array) -> None:
        with self.used() as address:
            status = native().foveal_stream_run(address, ctypes.addressof(request), ctypes.addressof(reuse))
        if status == A_SCENE_BEGINS:
            raise SceneBegins(scenes.astype(bool))
        self.frame += 1
        if status == -2:
            raise ValueError(request.error.decode())
        if status:
            raise MemoryError("a frame of a stream failed: no memory")

    def content(self, with_maps: bool = True) -> Content:
        """Copy all that is held, so that it can be kept in a file.

        Args:
            with_maps: Whether the tiles of the maps are copied too, which are most of it.

        Raises:
            ValueError: Nothing is held, another thread uses it, or it was closed.
        """
        parts, copy = StreamParts(), native().foveal_stream_copy_out
        with self.used() as address:
            copy(address, ctypes.addressof(parts))
            if not parts.tiles:
                raise ValueError("the stream holds no frame yet")
            found = self._room(parts.tiles, with_maps)
            table = found.describe(parts, len(self.program.tables.maps))
            copy(address, ctypes.addressof(parts))
            del table
        return found

    def restore(self, content: Content) -> None:
        """Hold what `content` of a stream of the same program, size and tile copied.

        Raises:
            ValueError: It is of another program or of other frames, or damaged; the stream is as it was.
        """
        like = self._room(len(content.image))
        if content.maps.keys() != like.maps.keys():
            raise ValueError("the memory is of another program; start anew without it")
        for have, room in zip(content.arrays, like.arrays, strict=True):
            if have.shape != room.shape or have.dtype != room.dtype:
                raise ValueError("the memory is of another program or of other frames; start anew without it")
            room[...] = have
        parts = StreamParts()
        table = like.describe(parts, len(self.program.tables.maps))
        with self.used() as address:
            status = native().foveal_stream_copy_in(address, ctypes.addressof(parts))
        del table
        if status:
            raise ValueError("the memory is damaged: its tiles do not cover the frame, or it holds NaN")
        self.frame += 1

    @property
    def kept_maps(self) -> dict[int, KeptMap]:
        """The maps whose tiles are kept, by number."""
        maps, reached = self.program.tables.maps, self.program.reached
        return {
            k: KeptMap(PRECISIONS[m.precision], self.tile // m.stride, m.channels)
            for k, m in enumerate(maps)
            if reached[k] and m.kind == TILED
        }

    @property
    def _shape_of_logits(self) -> tuple[int, ...]:
        rows = (-(-side // self.program.stride) for side in self.size)
        return (self.images, *rows, self.program.classes)

    def _room(self, tiles: int, with_maps: bool = True) -> Content:
        """Make room for the content of a stream with so many tiles."""
        if not 0 < tiles <= prod(self.cells):
            raise ValueError(f"the memory has {tiles} tiles, and the frames {prod(self.cells)} cells")
        picture = self.images, self.program.channels, *self.size
        return Content.room(
            tiles, self.cells, picture, self._shape_of_logits, self.kept_maps if with_maps else {}
        )
