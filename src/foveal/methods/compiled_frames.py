"""A method of video on a compiled network: a frame is one native call, its memory is native and bounded."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from foveal.geometry.layout import Layout
from foveal.geometry.plan import Plan
from foveal.kernels.build import tell
from foveal.methods.base import WrappingMethod, check_shape
from foveal.methods.frames import FrameSegmenter
from foveal.methods.prediction import Prediction, Step, Trace
from foveal.program.content import Content
from foveal.program.run import Program
from foveal.program.settings import PlannedRun, ReuseRun
from foveal.program.stream import FrameOfStream, SceneBegins, Stream
from foveal.tiles.memory import Record
from foveal.tiles.video import Frames, VideoMemory, check_memory

if TYPE_CHECKING:
    from foveal.tiles.memory import Memory

KEPT = "map"
"""Before the number and the precision of a map, in the name of a record."""


class StreamMemory(VideoMemory):
    """What a program keeps of a video: a stream after one of its frames.

    The parts of a memory are copied out when they are looked at. The next frame changes the stream: a memory
    from which a call went on is spent, and `copy` before makes another that is not.

    Args:
        stream: The stream.
        method: Name of the method that left it.
        state: What the method has learned and counted.
        labels: Class per pixel of the frame [N, H, W], uint8.
    """

    stream: Stream
    frame: int
    labels: Tensor

    def __init__(self, stream: Stream, method: str, state: Mapping[str, Tensor], labels: Tensor) -> None:
        given = {"stream": stream, "frame": stream.frame, "method": method, "state": state, "labels": labels}
        for name, value in given.items():
            object.__setattr__(self, name, value)

    @property
    def bytes(self) -> int:
        """Memory that it takes [B]: all of the stream's, which does not grow."""
        return self.stream.bytes + sum(x.numel() * x.element_size() for x in self.state.values())

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames [px]."""
        return self.stream.size

    @property
    def frames(self) -> Frames:
        """Shape of the frames, and their tiles."""
        shape = self.stream.images, self.stream.program.channels, *self.stream.size
        return Frames(shape, self.stream.tile, torch.float32)

    @property
    def holds_frame(self) -> bool:
        """Whether there is a frame in it: always."""
        return True

    @cached_property
    def content(self) -> Content:
        """What the stream holds but for the maps, copied."""
        return self.checked().stream.content(with_maps=False)

    @property
    def layout(self) -> Layout:
        """Place of every tile that is held."""
        held = self.content
        image, level, row, column, owner = map(
            torch.from_numpy, (held.image, held.level, held.row, held.column, held.owner)
        )
        return Layout(self.size, self.stream.tile, image, level, row, column, owner, len(held.image))

    @property
    def records(self) -> tuple[Record, ...]:
        """Tiles of the maps that are kept, in their own number formats."""
        kept, maps = self.stream.kept_maps, self.checked().stream.content().maps
        return tuple(Record(_name_of(k, kept[k].precision), _as_tensor(tiles)) for k, tiles in maps.items())

    @property
    def logits(self) -> Tensor:
        """The last answer [N, K, h, w]."""
        return torch.from_numpy(self.content.logits).permute(0, 3, 1, 2).contiguous()

    @property
    def picture(self) -> Tensor:
        """Pixels that every cell was last computed from [N, C, H, W]."""
        return torch.from_numpy(self.content.picture)

    @property
    def age(self) -> Tensor:
        """Frames since every cell was computed [N, Gh, Gw], int32."""
        return torch.from_numpy(self.content.age)

    @property
    def known_labels(self) -> Tensor:
        """Class per pixel of the frame [N, H, W]."""
        return self.labels

    def checked(self) -> StreamMemory:
        """Return it if the stream is still where it was left.

        Raises:
            ValueError: Another call went on from it.
        """
        if self.stream.frame != self.frame:
            raise ValueError(
                "the memory is spent: a frame went on from it before; go on from what that left, or from a "
                "copy() that was made before"
            )
        return self

    def copy(self) -> StreamMemory:
        """Return another memory with the same content, in native memory of its own."""
        return StreamMemory(self.checked().stream.copy(), self.method, self.state, self.labels)

    def with_state(self, state: Mapping[str, Tensor]) -> StreamMemory:
        """Return the same stream with something else learned and counted."""
        return StreamMemory(self.checked().stream, self.method, state, self.labels)

    def restarted(self) -> VideoMemory:
        """Return what outlives a scene: all that was learned, and no frame."""
        nothing = torch.zeros(0)
        layout = Plan.uniform(1, (1, 1), 1).layout
        return VideoMemory(layout, (), self.method, nothing, nothing, nothing, self.state)


class CompiledFrames(WrappingMethod):
    """Runs what a method of video would run as one native call a frame, from a memory of native code.

    Args:
        method: The method, on the network that was compiled.
        program: The compiled network.
        settings: What native code decides by; None if the method itself decides.
    """

    uses_memory = True

    def __init__(self, method: FrameSegmenter, program: Program, settings: ReuseRun | None) -> None:
        super().__init__()
        self.method, self.program, self.settings = method, program, settings
        self.network = method.network
        method.runs = self._run_plan

    def forward(self, image: Tensor, memory: Memory | None = None) -> Prediction:
        """Segment the next frames [N, C, H, W] in 0..1 of N videos; the memory that is given is spent.

        Raises:
            ValueError: As of the method, or the memory is spent, or of another program.
        """
        check_shape(image, self.network)
        before = check_memory(memory, self.method.name, image, self.method.tile)
        if self.settings is None:
            return self.method(image, before)
        return self._decided(image, before, self.settings)

    def masked(self, image: Tensor, wanted: Tensor) -> Prediction:
        """Segment single frames where cells are wanted [N, Gh, Gw], bool; nothing is remembered."""
        check_shape(image, self.network)
        plan = self.method.decide(image).only(wanted)
        settings, threads = PlannedRun(plan.levels.numpy(), plan.tile), torch.get_num_threads()
        found = self.program.run(_array(image), settings, wanted.numpy(), threads, logits=True)
        tell("convolution", found.macs)
        trace = Trace((Step("network", plan.work, plan),))
        return Prediction(_logits(found.logits), plan.size, trace, None, torch.from_numpy(found.labels))

    def decide(self, image: Tensor) -> Plan:
        """Return the plan of the method for first frames."""
        return self.method.decide(image)

    def dense(self) -> nn.Module:
        """Return the network."""
        return self.method.dense()

    def least_work(self, size: tuple[int, int]) -> float:
        """Return that of the method."""
        return self.method.least_work(size)

    def _decided(self, image: Tensor, before: VideoMemory | None, settings: ReuseRun) -> Prediction:
        """Let native code decide; what a scene begins with is the method's to say."""
        stream, array = self._stream(image, before), _array(image)
        begins = before is None or not before.holds_frame
        try:
            found = self._run(stream, array, settings, self._first_levels(image) if begins else None)
        except SceneBegins:
            found = self._run(stream, array, settings, self._first_levels(image))
        plan = Plan(torch.from_numpy(found.levels), stream.tile, stream.size)
        trace = Trace((Step("network", plan.work, plan),))
        labels = torch.from_numpy(found.labels)
        after = StreamMemory(stream, self.method.name, {} if before is None else before.state, labels)
        return Prediction(_logits(found.logits), stream.size, trace, after, labels)

    def _first_levels(self, image: Tensor) -> Any:
        """Return what a scene begins with [N, Gh, Gw]."""
        return self.method.decide(image).levels.numpy()

    def _run_plan(self, image: Tensor, plan: Plan, before: VideoMemory | None) -> StreamMemory:
        """Compute the tiles of a plan that the method made."""
        stream = self._stream(image, before)
        found = self._run(stream, _array(image), PlannedRun(plan.levels.numpy(), plan.tile), None)
        labels = torch.from_numpy(found.labels)
        return StreamMemory(stream, self.method.name, {} if before is None else before.state, labels)

    def _stream(self, image: Tensor, before: VideoMemory | None) -> Stream:
        """Return the stream of a memory; another one where a video begins, or goes on from a file."""
        if isinstance(before, StreamMemory) and before.stream.program is self.program:
            return before.checked().stream
        stream = Stream(self.program, (image.shape[2], image.shape[3]), self.method.tile, len(image))
        if before is not None and before.holds_frame:
            stream.restore(_content_of(before, stream))
        return stream

    def _run(self, stream: Stream, image: Any, settings: PlannedRun | ReuseRun, first: Any) -> FrameOfStream:
        """Run a frame, and tell whoever counts what it did."""
        threads = torch.get_num_threads()
        found = stream.run(image, settings, first, threads, logits=True)
        tell("convolution", found.macs)
        tell("interpolation", 4 * found.relabelled * self.program.classes * (self.program.stride > 1))
        return found


def _array(image: Tensor) -> Any:
    return image.detach().to("cpu", torch.float32).numpy()


def _logits(found: Any) -> Tensor:
    return torch.from_numpy(found).permute(0, 3, 1, 2)


def _name_of(number: int, precision: str) -> str:
    return f"{KEPT} {number} in {precision}"


def _as_tensor(tiles: Any) -> Tensor:
    """Return tiles [B, side, side, channels] as [B, channels, side, side]; halves as whole numbers."""
    whole = tiles.view(np.int16) if tiles.dtype == np.uint16 else tiles
    return torch.from_numpy(whole).permute(0, 3, 1, 2)


def _content_of(memory: VideoMemory, stream: Stream) -> Content:
    """Return a memory as a stream takes it.

    Raises:
        ValueError: Another engine or program left it.
    """
    names = {_name_of(number, kept.precision): number for number, kept in stream.kept_maps.items()}
    if [record.operation for record in memory.records] != list(names):
        raise ValueError(
            "the memory was left by another program, or layer by layer; start anew without the memory"
        )
    maps = {names[record.operation]: _as_array(record.tiles) for record in memory.records}
    layout = memory.layout
    return Content(
        image=layout.image.numpy(),
        level=layout.level.numpy(),
        row=layout.row.numpy(),
        column=layout.column.numpy(),
        owner=layout.owner.numpy(),
        age=memory.age.numpy(),
        picture=memory.picture.numpy(),
        logits=memory.logits.permute(0, 2, 3, 1).contiguous().numpy(),
        maps=maps,
    )


def _as_array(tiles: Tensor) -> Any:
    whole = tiles.permute(0, 2, 3, 1).contiguous().numpy()
    return whole.view(np.uint16) if whole.dtype == np.int16 else whole
