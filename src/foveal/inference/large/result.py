"""The result of a large image, written strip by strip when all windows are done, and what it cost."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from foveal.inference.large.coarse import block_part
from foveal.inference.large.fine import fine_windows
from foveal.inference.large.grid import count_squares
from foveal.inference.large.parts import Packed
from foveal.inference.large.plan import LargePlan, dense_tiles
from foveal.inference.large.sink import ROWS, Layer, beside
from foveal.inference.large.source import Window
from foveal.inference.large.swap import LOCK
from foveal.inference.large.task import COARSE, CONFIDENCE, FINE, LABELS, WRITE, Clock, Task
from foveal.storage.labels import VOID
from foveal.storage.lock import hold

Array = np.ndarray[Any, Any]
Write = Callable[[Layer, Path, Path], None]


@dataclass(frozen=True)
class LargeResult:
    """What became of a large image.

    Attributes:
        files: What was written, by name: labels, and confidence if it was asked for; empty while other shards
            have something to do.
        size: Height and width of the image [px].
        classes: Names of the classes.
        pixels: How many pixels every class got, and after the last one how many have no label.
        tile: Side of a cell [px].
        coarse_level: Level of the coarse pass.
        work: Tiles that were computed, what windows compute twice included, as a share of the dense work on
            what is wanted.
        planned: The same without what windows compute twice: what the budget counts.
        wanted: Share of the image's cells in which something is wanted.
        refined: Share of the image's cells that were computed at full resolution.
        windows: Windows of the image.
        windows_read: Windows that were read at full resolution.
        reach: Pixels beyond a border that decide labels; None if the network sees whole maps.
        seconds: Time of this process [s].
        plan: Which cells were wanted and refined; None while other shards have something to do.
    """

    files: dict[str, Path]
    size: tuple[int, int]
    classes: tuple[str, ...]
    pixels: tuple[int, ...]
    tile: int
    coarse_level: int
    work: float
    planned: float
    wanted: float
    refined: float
    windows: int
    windows_read: int
    reach: int | None
    seconds: float
    plan: LargePlan | None = field(default=None, repr=False)

    @property
    def speed(self) -> float:
        """Megapixels a second."""
        return self.size[0] * self.size[1] / 1e6 / max(self.seconds, 1e-9)


def unfinished(task: Task, start: float) -> LargeResult:
    """Say that other processes have something to do."""
    return _result(task, {}, np.zeros(0, np.int64), start, None)


def write_result(task: Task, plan: LargePlan, out: Path, write: Write, start: float) -> LargeResult:
    """Write the result if all windows are done and nobody else writes it, and delete what it was made from.

    Raises:
        OSError: It cannot be written; what was computed stays for the next call.
    """
    counts = np.zeros(VOID + 1, np.int64)
    if not all(task.parts.has(task.part(FINE, w)) for w in fine_windows(task, plan)):
        return _result(task, {}, counts, start, plan)
    try:
        handle = hold(task.parts.folder / LOCK, wait=False)
    except BlockingIOError:
        return _result(task, {}, counts, start, plan)
    try:
        card, size, place = task.network.engine.model.card, task.cut.size, task.source.place
        files: dict[str, Path] = {}
        if task.confidence:
            files[CONFIDENCE] = beside(out, CONFIDENCE)
            layer = Layer(size, partial(_strips, task, CONFIDENCE, None), place=place)
            write(layer, files[CONFIDENCE], task.parts.folder)
        layer = Layer(size, partial(_strips, task, LABELS, counts), card.palette, card.classes, place)
        write(layer, out, task.parts.folder)
        found = _result(task, {LABELS: out, **files}, counts, start, plan)
        task.parts.finish()
        return found
    finally:
        if handle is not None:
            os.close(handle)


def _strips(task: Task, name: str, counts: Array | None) -> Iterator[Array]:
    """Give the strips of a map, from the top, and count their values."""
    (height, width), side = task.cut.size, task.cut.window
    blank = VOID if name == LABELS else 0
    clock = Clock(task, WRITE, [Window(0, 0, height, width)])
    for row in range(0, height, side):
        opened = [(w, _opened(task, w)) for w in task.cut.windows if w.top == row]
        for top in range(row, min(height, row + side), ROWS):
            rows = min(ROWS, height - top, row + side - top)
            strip = np.full((rows, width), blank, np.uint8)
            for window, found in opened:
                if found is not None:
                    part = found.rows(name, top - row, top - row + rows, (window.height, window.width))
                    place = Window(top, window.left, rows, window.width)
                    strip[:, window.left : window.right] = _without_nan(task, part, place, blank)
            if counts is not None:
                counts += np.bincount(strip.ravel(), minlength=len(counts))
            yield strip
            clock.add(Window(top, 0, rows, width))


def _without_nan(task: Task, part: Array, place: Window, blank: int) -> Array:
    """Return a part of a map, blank where a float image has NaN: tiles and samples around it have a label."""
    if task.source.dtype.kind != "f":
        return part
    return np.where(task.source.numbers(place, 0).numpy(), part, np.uint8(blank))


def _opened(task: Task, window: Window) -> Packed | None:
    """Open what a window came to; None if nothing of it is wanted."""
    for stage in (FINE, COARSE):
        if task.parts.has(task.part(stage, window)):
            return task.parts.read(task.part(stage, window))
    return None


def _result(
    task: Task, files: dict[str, Path], counts: Array, start: float, plan: LargePlan | None
) -> LargeResult:
    """Count what was computed, by all processes."""
    cut, names = task.cut, tuple(task.network.engine.model.card.classes)
    work = planned = wanted = refined = 0.0
    fine: list[Window] = []
    if plan is not None:
        fine = fine_windows(task, plan)
        parts = [*(block_part(k) for k in range(len(cut.blocks))), *(task.part(FINE, w) for w in fine)]
        tiles = sum(
            int(task.parts.read(name).rows("tiles", shape=(1,))[0]) for name in parts if task.parts.has(name)
        )
        coarse = 0 if task.is_dense else count_squares(plan.wanted, 1 << cut.level)
        whole = max(dense_tiles(cut, plan.wanted), 1e-9)
        work, planned = tiles / whole, (coarse + int(plan.refined.sum())) / whole
        wanted, refined = (float(cells.double().mean()) for cells in (plan.wanted, plan.refined))
    pixels = (*counts[: len(names)].tolist(), int(counts[VOID])) if files else ()
    seconds = time.perf_counter() - start
    return LargeResult(
        files, cut.size, names, pixels, cut.tile, cut.level, work, planned, wanted, refined, len(cut.windows),
        len(fine), task.reach, seconds, plan,
    )  # fmt: skip
