"""One video through one method: the memory of a frame is given to the next."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from foveal.geometry.plan import SKIP
from foveal.inference.result import level_shares
from foveal.inference.video.frames import Clock, VideoFrame
from foveal.methods import Prediction
from foveal.tiles.memory import Memory
from foveal.tiles.video import VideoMemory

Method = Callable[[Tensor, Memory | None], Prediction]
"""Segments the next frame [1, 3, H, W], given what the last one left."""
Took = Callable[[float, float], None]


@dataclass(frozen=True)
class FrameResult:
    """What became of a frame.

    Attributes:
        frame: The frame.
        labels: Class per pixel [H, W], uint8.
        work: Share of the dense work, the decision included.
        levels: Level per cell [Gh, Gw], SKIP where the answer was kept; None if whole images ran.
        memory: What the next frame goes on from.
        ms: Time from the pixels to the labels [ms].
    """

    frame: VideoFrame
    labels: Tensor
    work: float
    levels: Tensor | None
    memory: Memory | None
    ms: float

    def row(self, clock: Clock) -> FrameRow:
        """Describe the frame."""
        shares = {} if self.levels is None else level_shares(self.levels)
        return FrameRow(
            frame=self.frame.index,
            seconds=round(float(self.frame.stamp * clock.unit), 6),
            size=self.frame.size,
            work=round(self.work, 4),
            ms=round(self.ms, 2),
            kept=round(shares.get(SKIP, 0.0), 4),
            levels={str(level): round(share, 4) for level, share in shares.items() if level != SKIP},
            memory_bytes=0 if self.memory is None else self.memory.bytes,
            dropped=self.frame.dropped,
        )


@dataclass(frozen=True, kw_only=True)
class FrameRow:
    """A line about a frame.

    Attributes:
        frame: Its number, from 0.
        seconds: When it is shown, counted from the first one [s].
        size: Height and width [px].
        work: Share of the dense work, the decision included.
        ms: Time from the pixels to the labels [ms].
        kept: Share of the cells that kept their answer.
        levels: Share of the cells that were computed at every level.
        memory_bytes: What is kept for the next frame [B].
        dropped: Frames right before it that were dropped.
    """

    frame: int
    seconds: float
    size: tuple[int, int]
    work: float
    ms: float
    kept: float
    levels: dict[str, float]
    memory_bytes: int
    dropped: int


def segment_frames(
    method: Method,
    frames: Iterable[VideoFrame],
    memory: Memory | None = None,
    took: Took = lambda work, ms: None,
    now: Callable[[], float] = time.perf_counter,
) -> Iterator[FrameResult]:
    """Segment the frames of a video, one in memory at a time.

    Where the size of the frames changes, a new scene begins; what a policy has learned stays.

    Args:
        method: What segments a frame, in evaluation mode.
        frames: The frames.
        memory: What an earlier part of the video left.
        took: Called after every frame with its share of the dense work and its time [ms].
        now: Returns the time [s].

    Raises:
        ValueError: The method refuses a frame, or the frames end in an error.
    """
    size: tuple[int, int] | None = None
    for frame in frames:
        if size is not None and frame.size != size:
            memory = memory.restarted() if isinstance(memory, VideoMemory) else None
        size, start = frame.size, now()
        prediction = _segment(method, frame, memory)
        labels = prediction.labels[0]
        ms = 1000 * (now() - start)
        memory = prediction.memory
        plan, work = prediction.trace.plan, float(prediction.trace.work[0])
        took(work, ms)
        yield FrameResult(frame, labels, work, None if plan is None else plan.levels[0], memory, ms)


@torch.no_grad()
def _segment(method: Method, frame: VideoFrame, memory: Memory | None) -> Prediction:
    prediction = method(frame.image, memory)
    _ = prediction.labels
    return prediction
