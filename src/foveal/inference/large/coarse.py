"""The coarse pass: labels for every wanted place, and how uncertain they are, block by block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foveal.inference.large.flow import flow
from foveal.inference.large.grid import spread, squares
from foveal.inference.large.mask import wanted_cells
from foveal.inference.large.paint import Painting
from foveal.inference.large.source import Window
from foveal.inference.large.task import COARSE, CONFIDENCE, LABELS, Clock, Task
from foveal.storage.labels import VOID

Arrays = dict[str, np.ndarray[Any, Any]]
Numbered = tuple[int, Window]


@dataclass(frozen=True)
class _Seen:
    """A block as it was read: what lies around it, the wanted cells, the coarse image [C, h, w]."""

    around: Window
    wanted: Tensor
    image: Tensor | None


@dataclass(frozen=True)
class _Found:
    """What a block came to: arrays for the plan, and the coarse labels of its windows."""

    arrays: Arrays
    windows: list[tuple[Window, Arrays]]


@dataclass(frozen=True)
class _Coarse:
    """A coarse answer [1, K, rows, columns] for a window, and which of its samples were computed."""

    task: Task
    around: Window
    logits: Tensor
    known: Tensor

    def painting(self, window: Window) -> Painting:
        """Return a part of it."""
        stride, level = self.task.network.stride, self.task.level
        side, size = stride << level, (window.height, window.width)
        top, left = (window.top - self.around.top) // side, (window.left - self.around.left) // side
        part = Window(top, left, -(-window.height // side), -(-window.width // side))
        return Painting(self.logits, part, size, stride, level, self.task.ends(window), self.known)


def block_part(number: int) -> str:
    """Return the name of what a block came to."""
    return f"block-{number}"


def run_coarse(task: Task) -> None:
    """Run the coarse pass on this process's blocks that are not done; a dense run asks the mask alone."""
    first, every = task.shard
    todo = [(k, b) for k, b in enumerate(task.cut.blocks) if k % every == first]
    todo = [(k, b) for k, b in todo if not task.parts.has(block_part(k))]
    clock = Clock(task, COARSE, [block for _, block in todo])

    def write(item: Numbered, found: _Found) -> None:
        for window, arrays in found.windows:
            task.parts.write(task.part(COARSE, window), arrays)
        task.parts.write(block_part(item[0]), found.arrays)  # the last one: now the block is done
        clock.add(item[1])

    flow(todo, lambda item: _read(task, item[1]), lambda item, seen: _compute(task, item[1], seen), write)


def _read(task: Task, block: Window) -> _Seen:
    """Read the mask around a block, and the coarse image if anything is wanted in it."""
    around = task.cut.around(block, task.coarse_look)
    where = task.cut.at(around, task.level)
    wanted = wanted_cells(task.mask.read(where, task.level), max(1, task.cut.tile >> task.level))
    if task.is_dense or not bool(wanted[task.cells_within(around, block)].any()):
        return _Seen(around, wanted, None)
    return _Seen(around, wanted, task.source.image(where, task.level, task.reading))


def _compute(task: Task, block: Window, seen: _Seen) -> _Found:
    """Run the network on a block at the coarse level."""
    around, side = seen.around, 1 << task.level
    own = seen.wanted[task.cells_within(around, block)]
    arrays: Arrays = {"wanted": own.numpy(), "tiles": np.zeros(1, np.int64)}
    if seen.image is None:
        return _Found(arrays, [])
    asked = seen.wanted
    if task.reach is not None:
        asked = asked & spread(task.put(squares(own, side), around, block), task.steps(task.coarse_look))
    asked = squares(asked, side)
    image = task.network.padded(seen.image[None], task.level)
    cells = task.fitted(asked[::side, ::side], image)
    answer = task.network(image, torch.zeros_like(cells), cells)
    task.tiles += answer.tiles
    coarse = _Coarse(task, around, answer.logits, _known(task, cells, answer.logits))
    arrays |= _judge(task, coarse.painting(block), own)
    arrays["tiles"] = np.array([answer.tiles])
    windows = []
    for window in task.cut.within(block):
        inside = own[task.cells_within(block, window)]
        if bool(inside.any()):
            windows.append((window, _paint(task, coarse.painting(window), inside)))
    return _Found(arrays, windows)


def _paint(task: Task, painting: Painting, wanted: Tensor) -> Arrays:
    """Return the coarse labels of a window, and how sure they are."""
    blank = ~task.pixels(wanted, painting.size)
    found = {LABELS: painting.labels().masked_fill(blank, VOID).numpy()}
    if task.confidence:
        found[CONFIDENCE] = painting.confidence().masked_fill(blank, 0).numpy()
    return found


def _judge(task: Task, painting: Painting, own: Tensor) -> Arrays:
    """Say how uncertain the answer is, a row of coarse tiles at a time."""
    tile, per = task.cut.tile, task.cut.tile // task.network.stride
    maps: list[Tensor] = []
    shares = torch.zeros(painting.logits.shape[1], dtype=torch.float64)
    computed = squares(own, 1 << task.level)
    for k, logits in enumerate(painting.bands(per)):
        top = k * (tile << task.level)
        size = min(tile << task.level, painting.size[0] - top), painting.size[1]
        maps.append(task.uncertainty.maps(logits, size, tile))
        cells = computed[top // tile : -(-(top + size[0]) // tile)]
        known = cells.repeat_interleave(per, 0).repeat_interleave(per, 1)
        known = known[: logits.shape[2], : logits.shape[3]]
        shares += task.uncertainty.shares(logits, known)
    return {"maps": torch.cat(maps, 1).transpose(0, 1).numpy(), "shares": shares.numpy()}


def _known(task: Task, tiles: Tensor, logits: Tensor) -> Tensor:
    """Return which samples of a coarse answer were computed [rows, columns], from the tiles that were."""
    per = task.cut.tile // task.network.stride
    return tiles.repeat_interleave(per, 0).repeat_interleave(per, 1)[: logits.shape[2], : logits.shape[3]]
