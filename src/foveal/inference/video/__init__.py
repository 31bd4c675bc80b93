"""Videos: frames in one by one, labels out, memory bounded by a few frames."""

from foveal.inference.video.frames import Clock, VideoFrame
from foveal.inference.video.held import MaskedFrames
from foveal.inference.video.live import Live, Played, is_live
from foveal.inference.video.pace import Latency, LongRun, Pace
from foveal.inference.video.paced import Paced
from foveal.inference.video.sinks import Sink, open_sink
from foveal.inference.video.sound import Sound
from foveal.inference.video.sources import Source, open_source
from foveal.inference.video.stream import FrameResult, FrameRow, segment_frames

__all__ = [
    "Clock",
    "FrameResult",
    "FrameRow",
    "Latency",
    "Live",
    "LongRun",
    "MaskedFrames",
    "Pace",
    "Paced",
    "Played",
    "Sink",
    "Sound",
    "Source",
    "VideoFrame",
    "is_live",
    "open_sink",
    "open_source",
    "segment_frames",
]
