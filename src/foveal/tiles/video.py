"""What is known of a video after a frame, as a value: features, the last answer, the pixels they are from.

A method that segments frame by frame takes it and returns the next one; nothing else is kept between two
frames. It can be written to a file and read again: a stream then goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import torch
from pydantic import Field
from safetensors.torch import save as to_bytes
from torch import Tensor

from foveal.geometry.layout import Layout
from foveal.geometry.refine import grid
from foveal.storage.atomic import write_atomically
from foveal.storage.reading import parse_json, refusal
from foveal.storage.schema import MOST_LEVEL, Name, Side, Tile, read_as
from foveal.storage.tensors import read_tensors
from foveal.tiles.memory import Memory, Record
from foveal.tiles.tensor import split

if TYPE_CHECKING:
    from foveal.geometry.plan import Plan

OLDEST = 1 << 30
"""Frames that an age counts up to."""
WHAT = "memory of a video"
PLACES = ("image", "level", "row", "column")
"""Fields of a layout, one number a tile."""


class Frames(NamedTuple):
    """What frames must have in common to be of one video.

    Attributes:
        shape: [N, C, H, W].
        tile: Side of a tile [px].
        dtype: Precision of the pixels.
    """

    shape: tuple[int, ...]
    tile: int
    dtype: torch.dtype


@dataclass(frozen=True)
class VideoMemory(Memory):
    """Everything that a method keeps of a video, one image of a batch a stream.

    Attributes:
        method: Name of the method that left it.
        logits: The last answer [N, K, h, w].
        picture: Pixels that every cell was last computed from [N, C, H, W].
        age: Frames since every cell was computed [N, Gh, Gw], int32; 0 if it was in the last one.
        state: What the method has learned and counted, by name, [N, ...] each.
    """

    method: str
    logits: Tensor = field(repr=False)
    picture: Tensor = field(repr=False)
    age: Tensor = field(repr=False)
    state: Mapping[str, Tensor] = field(repr=False)

    @property
    def bytes(self) -> int:
        """Memory that it takes [B]."""
        others = (self.logits, self.picture, self.age, *self.state.values())
        return super().bytes + sum(x.numel() * x.element_size() for x in others)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames [px]."""
        return self.layout.size

    @property
    def frames(self) -> Frames:
        """Shape of the frames, and their tiles."""
        return Frames(tuple(self.picture.shape), self.layout.tile, self.picture.dtype)

    @property
    def holds_frame(self) -> bool:
        """Whether there is a frame in it, and not only what was learned."""
        return bool(self.records)

    @property
    def known_labels(self) -> Tensor | None:
        """Class per pixel of the last frame [N, H, W], where it was computed together with the logits."""
        return None

    @property
    def held(self) -> Tensor:
        """Level that the answer of every cell comes from [N, Gh, Gw]."""
        return self.layout.level[self.layout.owner]

    def copy(self) -> VideoMemory:
        """Return what a call may go on from while another one goes on from this: itself, as values are."""
        return self

    def with_state(self, state: Mapping[str, Tensor]) -> VideoMemory:
        """Return the same with something else learned and counted."""
        return replace(self, state=state)

    def restarted(self) -> VideoMemory:
        """Return what outlives a scene: all that was learned, and no frame."""
        return replace(self, records=())

    def save(self, path: str | Path) -> None:
        """Write it as one safetensors file, with what is no tensor as JSON in its header.

        Raises:
            OSError: It cannot be written; an older file is then as it was.
        """
        layout, here = self.layout, {"logits": self.logits, "picture": self.picture, "age": self.age}
        here |= {f"layout.{name}": getattr(layout, name) for name in (*PLACES, "owner")}
        here |= {f"record.{k}": record.tiles for k, record in enumerate(self.records)}
        here |= {f"state.{name}": value for name, value in self.state.items()}
        operations = [record.operation for record in self.records]
        told = {"method": self.method, "tile": layout.tile, "size": layout.size, "operations": operations}
        content = {name: value.detach().cpu().contiguous() for name, value in here.items()}
        write_atomically(path, to_bytes(content, {"foveal.video": json.dumps(told)}))

    @classmethod
    def load(cls, path: str | Path) -> VideoMemory:
        """Read a file that `save` wrote, onto the CPU.

        Raises:
            ValueError: The file holds no memory of a video, or its parts do not fit one another.
        """
        tensors, header = read_tensors(path, WHAT)
        told = read_as(_Told, parse_json(header.get("foveal.video", "null"), path, WHAT), path, WHAT)
        try:
            return _assemble(told, tensors)
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            said = f"it lacks {error}" if isinstance(error, KeyError) else error
            raise ValueError(refusal(path, WHAT, said)) from None


@dataclass(frozen=True)
class _Told:
    """What the header of a file says."""

    method: Name
    tile: Tile
    size: tuple[Side, Side]
    operations: Annotated[tuple[Name, ...], Field(max_length=1 << 14, strict=False)]


def check_memory(memory: Memory | None, method: str, image: Tensor, tile: int) -> VideoMemory | None:
    """Return what a method may go on from; None before the first frame.

    Args:
        memory: What the last call left.
        method: Name of the method that goes on.
        image: The next frames [N, C, H, W].
        tile: Side of its tiles [px].

    Raises:
        ValueError: Another method left it, or it is of other frames.
    """
    if memory is None:
        return None
    if not isinstance(memory, VideoMemory) or memory.method != method:
        left = memory.method if isinstance(memory, VideoMemory) else "a pass over one image"
        raise ValueError(f"the memory was left by {left}, and {method} goes on; start anew without it")
    if not memory.holds_frame:
        return memory
    ours, theirs = Frames(tuple(image.shape), tile, image.dtype), memory.frames
    if ours != theirs:
        raise ValueError(
            f"the memory is of frames {list(theirs.shape)} of {theirs.dtype} with tile {theirs.tile}, the "
            f"next ones are {list(ours.shape)} of {ours.dtype} with tile {ours.tile}; start anew without the "
            "memory"
        )
    return memory


def compute(
    network: Callable[[Any], Any], image: Tensor, plan: Plan, memory: VideoMemory | None, method: str
) -> VideoMemory:
    """Compute the tiles of a plan for the next frames, over what the last ones left.

    Where the plan skips everything nothing runs, modules that see the whole map included.

    Args:
        network: Module from tiles to logits.
        image: The frames [N, C, H, W].
        plan: What is computed; skipped cells keep their answer.
        memory: From `check_memory`; without a frame in it the plan should skip nothing.
        method: Name of the method that goes on.

    Returns:
        The memory after the frames, the state as it was.
    """
    state = {} if memory is None else memory.state
    before = memory if memory is not None and memory.holds_frame else None
    fresh = (plan.levels >= 0).to(image.device)
    if before is not None and not bool(fresh.any()):
        return replace(before, age=(before.age + 1).clamp(max=OLDEST))
    tiles = network(split(image, plan, before, remember=True))
    logits, kept = tiles.dense().detach(), tiles.memory()
    if before is None:
        picture, age = image.detach().clone(), torch.zeros(fresh.shape, dtype=torch.int32)
    else:
        pixels = spread_cells(fresh, plan.tile, plan.size)[:, None]
        picture = torch.where(pixels, image.detach(), before.picture)
        age = torch.where(fresh.cpu(), 0, (before.age + 1).clamp(max=OLDEST))
    return VideoMemory(kept.layout, kept.records, method, logits, picture, age, state)


def spread_cells(cells: Tensor, tile: int, size: tuple[int, int]) -> Tensor:
    """Repeat a value per cell [N, Gh, Gw] over its pixels [N, H, W]."""
    return cells.repeat_interleave(tile, 1).repeat_interleave(tile, 2)[:, : size[0], : size[1]]


def _assemble(told: _Told, tensors: dict[str, Tensor]) -> VideoMemory:
    """Make a memory of what a file holds; native code relies on all that is asked for here."""
    height, width = told.size
    owner = _whole(tensors["layout.owner"], 3, "the owners")
    images, tiles = len(owner), len(tensors["layout.image"])
    if tuple(owner.shape[1:]) != grid(told.size, told.tile) or not images:
        raise ValueError("its cells do not cover its frames")
    most = {"image": images - 1, "level": MOST_LEVEL, "row": owner.shape[1] - 1, "column": owner.shape[2] - 1}
    image, level, row, column = (
        _bounded(tensors[f"layout.{name}"], tiles, 0, most[name], name) for name in PLACES
    )
    _bounded(owner.flatten(), owner.numel(), -1, tiles - 1, "owner")
    layout = Layout(told.size, told.tile, image, level, row, column, owner, computed=tiles)
    _check_owners(layout)
    records = [Record(name, tensors[f"record.{k}"]) for k, name in enumerate(told.operations)]
    for record in records:
        shape = record.tiles.shape
        if record.tiles.ndim < 4 or shape[0] != tiles or shape[-1] != shape[-2] or told.tile % shape[-1]:
            raise ValueError(f"a record of {record.operation} is {list(shape)}")
    logits, picture, age = tensors["logits"], tensors["picture"], tensors["age"]
    fits = picture.ndim == 4 and (len(picture), *picture.shape[2:]) == (images, height, width)
    if not fits or logits.ndim != 4 or len(logits) != images or age.shape != owner.shape:
        raise ValueError("its logits, picture and ages are of different frames")
    mark = "state."
    state = {name.removeprefix(mark): x for name, x in tensors.items() if name.startswith(mark)}
    if any(x.ndim < 1 or len(x) != images for x in state.values()):
        raise ValueError("its state is of another number of streams")
    return VideoMemory(layout, tuple(records), told.method, logits, picture, age.int(), state)


def _check_owners(layout: Layout) -> None:
    """Refuse cells that are owned by a tile that does not cover them."""
    image, row, column = (layout.owner >= 0).nonzero().unbind(1)
    tile = layout.owner[image, row, column]
    level = layout.level[tile]
    inside = (layout.image[tile] == image) & (layout.row[tile] == (row >> level) << level)
    if not bool((inside & (layout.column[tile] == (column >> level) << level)).all()):
        raise ValueError("a cell belongs to a tile that does not cover it")


def _whole(x: Tensor, ndim: int, name: str) -> Tensor:
    if x.ndim != ndim or x.dtype not in (torch.int64, torch.int32, torch.int8):
        raise ValueError(f"{name} are {x.dtype} {list(x.shape)}")
    return x.long()


def _bounded(x: Tensor, count: int, low: int, high: int, name: str) -> Tensor:
    x = _whole(x, 1, name)
    if len(x) != count or (count and not low <= int(x.min()) <= int(x.max()) <= high):
        raise ValueError(f"{name} goes beyond {low} to {high}, or has not {count} numbers")
    return x
