"""Videos: frames in one by one, labels out, memory bounded by a few frames."""

from foveal.inference.video.frames import Clock, VideoFrame
from foveal.inference.video.sinks import Sink, open_sink
from foveal.inference.video.sources import Source, open_source
from foveal.inference.video.stream import FrameResult, FrameRow, segment_frames

__all__ = [
    "Clock",
    "FrameResult",
    "FrameRow",
    "Sink",
    "Source",
    "VideoFrame",
    "open_sink",
    "open_source",
    "segment_frames",
]
