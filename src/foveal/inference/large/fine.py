"""Windows at full resolution: what the plan refines, each with all that decides its labels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.inference.large.flow import flow
from foveal.inference.large.grid import spread, squares
from foveal.inference.large.paint import Painting
from foveal.inference.large.parts import Packed
from foveal.inference.large.plan import LargePlan
from foveal.inference.large.source import Window
from foveal.inference.large.task import COARSE, CONFIDENCE, FINE, LABELS, Clock, Task
from foveal.storage.labels import VOID

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class _Seen:
    """A window as it was read.

    Attributes:
        region: What is run.
        near: Cells of the region that are computed coarsely.
        run: Cells of the region that are refined.
        own: Cells of the region whose labels are taken.
        image: The region [C, h, w].
    """

    region: Window
    near: Tensor
    run: Tensor
    own: Tensor
    image: Tensor


def run_fine(task: Task, plan: LargePlan) -> None:
    """Run all windows of this process that have something to refine and are not done."""
    first, every = task.shard
    mine = fine_windows(task, plan)[first::every]
    todo = [w for w in mine if not task.parts.has(task.part(FINE, w))]
    clock = Clock(task, FINE, todo)

    def write(window: Window, found: Arrays) -> None:
        task.parts.write(task.part(FINE, window), found)
        clock.add(window)

    flow(todo, partial(_read, task, plan), partial(_compute, task), write)


def fine_windows(task: Task, plan: LargePlan) -> list[Window]:
    """Return the windows in which something is refined, or beside them."""
    return [w for w in task.cut.windows if bool(_touched(task, plan, w).any())]


def _touched(task: Task, plan: LargePlan, window: Window) -> Tensor:
    """Return the cells of a window that are refined, or lie beside one that is [gh, gw].

    Labels are enlarged from logits, so pixels beside a refined cell are mixed with it: coarse samples up to
    half of one, and those at the network's stride.
    """
    around = task.cut.around(window, task.cut.unit)
    place = task.cut.cells_of(around)
    stride = task.network.stride
    mixed = task.steps((stride << task.level) // 2 + stride)
    near = spread(plan.refined[place], mixed) & plan.wanted[place]
    return near[task.cells_within(around, window)]


def _read(task: Task, plan: LargePlan, window: Window) -> _Seen:
    """Read what decides the labels of the refined cells of a window."""
    look = task.fine_look if task.is_dense else task.coarse_look
    seen = task.cut.around(window, look)
    around = task.cut.around(seen, task.cut.unit)
    place = task.cut.cells_of(around)
    wanted = plan.wanted[place]
    own = task.put(_touched(task, plan, window), around, window)
    run = plan.refined[place] & spread(own, task.steps(task.fine_look))
    near = _near(task, own, wanted)
    if task.reach is None:  # all of the window and what lies around it is context
        near = near & task.put(torch.ones_like(wanted[task.cells_within(around, seen)]), around, seen)
    needed, fine = task.cut.bounds(near | run, around), task.cut.bounds(run, around)
    # Where the image goes on, there is something around that is not known: it is not the image's edge.
    region = task.cut.around(needed, task.cut.unit)
    inside, image = task.cells_within(around, region), _image(task, needed, fine)
    top, left = needed.top - region.top, needed.left - region.left
    rest = left, region.width - left - needed.width, top, region.height - top - needed.height
    return _Seen(region, near[inside], run[inside], own[inside], F.pad(image, rest))


def _near(task: Task, own: Tensor, wanted: Tensor) -> Tensor:
    """Return the cells that the coarse pass has to see."""
    if task.is_dense:
        return torch.zeros_like(own)
    if task.reach is None:
        return wanted
    return squares(spread(own, task.steps(task.coarse_look)), 1 << task.level) & wanted


def _image(task: Task, region: Window, fine: Window) -> Tensor:
    """Read a region: fully where refined cells lie, else from the file's coarse level if it has it."""
    if task.is_dense or task.level not in task.source.levels:
        return task.source.image(region, 0, task.reading)
    side, level = 1 << task.level, task.level
    image = task.source.image(task.cut.at(region, level), level, task.reading)
    image = image.repeat_interleave(side, 1).repeat_interleave(side, 2)
    image = image[:, : region.height, : region.width].contiguous()
    top, left = fine.top - region.top, fine.left - region.left
    image[:, top : top + fine.height, left : left + fine.width] = task.source.image(fine, 0, task.reading)
    return image


def _compute(task: Task, window: Window, seen: _Seen) -> Arrays:
    """Run the network on the refined cells of a window, and put their labels over its coarse ones."""
    image = task.network.padded(seen.image[None], 0)
    answer = task.network(image, task.fitted(seen.near, image), task.fitted(seen.run, image))
    task.tiles += answer.tiles
    size, region = (window.height, window.width), (seen.region.height, seen.region.width)
    taken, name = task.pixels(seen.own, region), task.part(COARSE, window)
    before = task.parts.read(name) if task.parts.has(name) else None
    found = {LABELS: _start(before, LABELS, size, VOID)}
    _paste(found[LABELS], window, answer.labels[: region[0], : region[1]], seen.region, taken)
    if task.confidence:
        whole = Window(0, 0, *answer.logits.shape[2:])
        sure = Painting(answer.logits, whole, region, task.network.stride, 0, (None, None)).confidence()
        found[CONFIDENCE] = _start(before, CONFIDENCE, size, 0)
        _paste(found[CONFIDENCE], window, sure, seen.region, taken)
    return found | {"tiles": np.array([answer.tiles])}


def _start(before: Packed | None, name: str, size: tuple[int, int], blank: int) -> np.ndarray[Any, Any]:
    """Return a map to paste into: the coarse one of the window, or a blank one."""
    return np.full(size, blank, np.uint8) if before is None else before.rows(name, shape=size).copy()


def _paste(into: np.ndarray[Any, Any], window: Window, values: Tensor, region: Window, taken: Tensor) -> None:
    """Write what is taken of a region's values [h, w] into the map of a window."""
    low, high = max(window.top, region.top), max(window.left, region.left)
    bottom, right = min(window.bottom, region.bottom), min(window.right, region.right)
    ours = slice(low - window.top, bottom - window.top), slice(high - window.left, right - window.left)
    theirs = slice(low - region.top, bottom - region.top), slice(high - region.left, right - region.left)
    chosen = taken[theirs].numpy()
    into[ours][chosen] = values[theirs].numpy()[chosen]
