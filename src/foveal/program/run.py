"""A program that runs: one native call from images to labels. Needs NumPy and the C kernels, not PyTorch."""

from __future__ import annotations

import ctypes
import math
import os
import weakref
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from foveal.program.asked import check_sides, threads_of
from foveal.program.builder import Tables
from foveal.program.cells import checked_cells
from foveal.program.file import read_tables, write_tables
from foveal.program.images import as_array, take_image
from foveal.program.info import ProgramInfo, RunDefaults
from foveal.program.settings import (
    CoarseToFineRun,
    DenseRun,
    PlannedRun,
    RefinedRun,
    ReuseRun,
    SegBlocksRun,
    Settings,
    logits_grid,
)
from foveal.program.spec import MORE_TIMES, SCORES, Request, native
from foveal.storage.given import need, need_path
from foveal.storage.labels import MASK_BORDERS

Array = np.ndarray[Any, Any]
METHODS: dict[type, int] = {
    DenseRun: 0,
    PlannedRun: 1,
    SegBlocksRun: 2,
    CoarseToFineRun: 3,
    RefinedRun: 3,  # with a plan that somebody else has made
    ReuseRun: 4,
}
PHASES = ("decide", "compose", "label", "input", "index")
"""What is timed besides the steps."""


@dataclass(frozen=True, eq=False)
class ProgramResult:
    """What a program says about a batch of images.

    Attributes:
        labels: Class per pixel [N, H, W], uint8; 255 where nothing was computed.
        levels: Level that the answer comes from, per cell [N, Gh, Gw], int8; -1 where nothing was computed.
        work: Share of the dense work per image [N].
        macs: Multiply-accumulates of the steps that ran [MAC].
        passes: How many passes ran.
        confidence: Probability of the label per pixel [N, H, W], if it was asked for.
        logits: [N, h, w, K] at the network's stride, if they were asked for.
        step_ms: Time per step and phase [ms], if it was asked for.
    """

    labels: Array
    levels: Array
    work: Array
    macs: int
    passes: int
    confidence: Array | None = None
    logits: Array | None = None
    step_ms: dict[str, float] = field(default_factory=dict)


class Program:
    """A compiled network. It may run in several threads at once; every run has memory of its own.

    Attributes:
        tables: What it was made from.
        info: Names, colours and recommended settings; None if nobody said.
        classes: Number of classes K.
        stride: Input pixels per logit sample.
        address: Where native code has it.

    Raises:
        RuntimeError: The C kernels are not available here.
        ValueError: The tables are no program; native code says why. Or the info is of another network.
        MemoryError: There is no memory.
    """

    def __init__(self, tables: Tables, info: ProgramInfo | None = None) -> None:
        self.tables, self.info = tables, info
        self.classes = int(tables.head.classes)
        self.channels = int(tables.head.colours) or 3
        self.stride = int(tables.maps[tables.head.output].stride)
        numbers = tables.numbers
        parts = (ctypes.addressof(part) for part in (tables.head, tables.maps, tables.steps))
        error = ctypes.create_string_buffer(256)
        said = ctypes.addressof(error), len(error)
        address = native().foveal_program_make(*parts, numbers.ctypes.data, len(numbers), *said)
        if not address and error.value:
            raise ValueError(f"these tables are no program: {error.value.decode()}")
        if not address:
            raise MemoryError("a program could not be made: there is no memory")
        self.address = int(address)
        weakref.finalize(self, native().foveal_program_free, address)
        if info is not None:  # native code has found the tables to be a program
            info.check(self.classes, int(tables.head.coarsest_stride))

    def run(  # noqa: PLR0913
        self,
        image: Any,
        settings: Settings | None = None,
        mask: Array | None = None,
        threads: int | None = None,
        confidence: bool = False,
        logits: bool = False,
        profile: bool = False,
        shrunk_to: tuple[int, int] | None = None,
    ) -> ProgramResult:
        """Segment images.

        Args:
            image: [N, C, H, W] floats in 0..1, or [N, H, W, C] bytes; an array or a tensor on the CPU.
            settings: Method and budget; dense if absent.
            mask: Cells that are wanted [N, Gh, Gw]; the others are not computed, their label is 255.
            threads: Threads of this run; as many as the process may use if absent.
            confidence: Whether the probability of every label is wanted.
            logits: Whether the logits are wanted.
            profile: Whether every step is timed.
            shrunk_to: Height and width that the images are brought to first [px], antialiased. Plan, levels,
                budget and work are then those of the smaller images; labels and confidence have the size of
                the images that came in, logits lie at a stride of 4, 2 or 1 of these. There is no mask.

        Raises:
            ValueError: Images, plan or mask have another shape or precision than they must, the tile is no
                multiple of the network's stride, or the budget does not pay for the cheapest plan.
            MemoryError: There is no memory.
        """
        settings = DenseRun() if settings is None else settings
        need(settings, tuple(METHODS), "settings", "a DenseRun, PlannedRun, SegBlocksRun or CoarseToFineRun")
        if settings == DenseRun():
            settings = DenseRun(max(settings.tile, int(self.tables.head.coarsest_stride)))
        request = Request()
        keep = [take_image(request, as_array(image), self.channels)]
        shape = request.images, request.height, request.width
        sides = (request.height, request.width) if shrunk_to is None else check_sides("shrunk_to", shrunk_to)
        if shrunk_to is not None:
            request.full_height, request.full_width = shape[1:]
            request.height, request.width = sides
        cells = shape[0], *(-(-side // settings.tile) for side in sides)
        fill_request(request, settings)
        request.threads = threads_of(threads) or usable_threads()
        for name, values, kind in (
            ("mask", mask, np.uint8),
            ("plan", getattr(settings, "levels", None), np.int8),
        ):
            if values is not None:
                keep.append(checked_cells(name, values, cells, kind))
                setattr(request, name, keep[-1].ctypes.data)
        rows = logits_grid(shape[1:], sides, self.stride)
        steps = len(self.tables.names)
        out = {
            "labels": np.empty(shape, np.uint8),
            "levels": np.empty(cells, np.int8),
            "work": np.zeros(shape[0]),
            "confidence": np.empty(shape, np.float32) if confidence else None,
            "logits": np.empty((shape[0], *rows, self.classes), np.float32) if logits else None,
            "step_ms": np.zeros(steps + MORE_TIMES) if profile else None,
        }
        for name, array in out.items():
            setattr(request, name, None if array is None else array.ctypes.data)
        self.call(request)
        times = out.pop("step_ms")
        names = (*self.tables.names, *PHASES)
        named = {} if times is None else dict(zip(names, times[: len(names)].tolist(), strict=True))
        return ProgramResult(**out, macs=request.macs, passes=request.passes, step_ms=named)  # type: ignore[arg-type]

    def segment(self, image: Any, budget: float = 0.4, **asked: Any) -> ProgramResult:
        """Segment images coarse to fine as the file recommends: shrunk first where the network sees best so.

        Args:
            image: As of `run`.
            budget: Share of the dense work on the whole images; what pays for all of them runs dense.
            asked: What else `run` takes, but `settings` and `shrunk_to`.

        Returns:
            The answer; levels are those of the shrunk images, work is a share of the whole ones' dense work.

        Raises:
            ValueError: As of `run`.
        """
        need(budget, Real, "budget", "a share of the dense work, above 0")
        defaults = RunDefaults() if self.info is None else self.info.run
        array, like = as_array(image), Request()
        take_image(like, array, self.channels)
        size = like.height, like.width
        sides = defaults.sides(size)
        share = math.prod(sides) / math.prod(size)
        shrunk_to = None if sides == size else sides
        found = self.run(
            array, defaults.coarse_to_fine(min(1.0, budget / share)), shrunk_to=shrunk_to, **asked
        )
        return replace(found, work=share * found.work)

    def call(self, request: Request) -> None:
        """Run native code.

        Raises:
            ValueError: What is asked for does not fit; native code says why.
            MemoryError: There is no memory.
        """
        status = native().foveal_program_run(self.address, ctypes.addressof(request))
        if status == -2:
            raise ValueError(request.error.decode())
        if status:
            raise MemoryError(f"a run of a program failed: {request.error.decode() or 'no memory'}")

    def release(self) -> None:
        """Free the memory that earlier runs have left for later ones."""
        native().foveal_program_release(self.address)

    @property
    def reached(self) -> tuple[bool, ...]:
        """Which maps are read beyond a tile, so that a stream keeps their tiles."""
        found = np.zeros(len(self.tables.maps), np.uint8)
        native().foveal_program_reached(self.address, found.ctypes.data)
        return tuple(found.astype(bool).tolist())

    def save(self, path: str | Path) -> None:
        """Write the program as one safetensors file that `load_program` reads without PyTorch."""
        need_path(path, "path")
        write_tables(self.tables, Path(path), self.info)

    def observe(self, image: Array, span: Array, counts: Array | None = None) -> None:
        """Note the values of all maps of a dense run of images [N, C, H, W], float32.

        Args:
            image: Images in 0..1.
            span: Smallest and largest value per map [maps, 2], float32, widened if `counts` is absent.
            counts: Values per map in equal parts of that span [maps, bins], float32, added to.
        """
        request = Request()
        keep = take_image(request, as_array(image), self.channels)
        fill_request(request, DenseRun(int(self.tables.head.coarsest_stride)))
        request.threads, request.range = usable_threads(), span.ctypes.data
        work = np.zeros(len(keep))
        request.work = work.ctypes.data
        if counts is not None:
            request.histogram, request.bins = counts.ctypes.data, counts.shape[1]
        self.call(request)


def load_program(path: str | Path) -> Program:
    """Read a program that `Program.save` wrote; PyTorch is not needed.

    Raises:
        ValueError: The file holds no program, or one of another version.
    """
    need_path(path, "path", "the name of a program file")
    tables, info = read_tables(Path(path))
    try:
        return Program(tables, info)
    except ValueError as error:
        raise ValueError(f"{path} holds no program of this version ({error})") from None


def fill_request(request: Request, settings: Settings) -> None:
    """Say which method runs, and with which settings."""
    request.method, request.tile = METHODS[type(settings)], settings.tile
    request.gains, request.budget = 1, 1.0
    if isinstance(settings, SegBlocksRun | CoarseToFineRun | ReuseRun):
        request.budget, request.score = settings.budget, SCORES.index(settings.score)
        request.coarse_level = settings.coarse_level
    if isinstance(settings, SegBlocksRun):
        request.max_level = settings.max_level
    if isinstance(settings, CoarseToFineRun | ReuseRun):
        request.gains = len(settings.level_gain)
        request.level_gain[: request.gains] = settings.level_gain
    if isinstance(settings, RefinedRun):
        request.coarse_level, request.blend = settings.coarse_level, settings.logit_blend
        request.direct = int(settings.levels.max() <= 0)
    if isinstance(settings, CoarseToFineRun):
        request.blend = settings.logit_blend
        request.direct, request.isolated = int(settings.direct), settings.isolated_gain
        request.shared, request.has_threshold = int(settings.shared), int(settings.threshold is not None)
        request.threshold = settings.threshold or 0.0
        request.mask_border = MASK_BORDERS.index(settings.mask_border)


def usable_threads() -> int:
    """Threads that the process may use: OMP_NUM_THREADS, else its processors."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) > 0 else len(os.sched_getaffinity(0))
