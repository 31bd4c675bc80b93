"""Where frames come from: video files and streams by PyAV, or images in a folder or a pattern."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from foveal.data.image import IMAGE_SUFFIXES, list_images, looks_like_image, read_image
from foveal.inference.video.frames import NAMED_RATE, Clock, VideoFrame, import_av
from foveal.inference.video.sound import Sound
from foveal.storage.reading import shorten

TURN = 90
"""Degrees that pictures can be turned by without being resampled."""
PIXELS = 200_000_000
"""Of a frame, at most; as of image files."""


class Source(Protocol):
    """Frames in order; they can be walked through once.

    Attributes:
        name: What the user gave.
        clock: When frames are shown.
        count: Frames that there are said to be; None if nobody says.
        sound: Sound that goes with the frames; None if there is none, or it cannot be read again.
    """

    name: str
    clock: Clock
    count: int | None
    sound: Sound | None

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield the frames, one in memory at a time.

        Raises:
            ValueError: There are none, or one of them is damaged.
        """

    def close(self) -> None:
        """Let files go."""


def open_source(name: str, rate: Fraction | None = None) -> Source:
    """Open a video.

    Args:
        name: A video file or address that FFmpeg opens, a folder of images, or a pattern such as `a/*.png`.
        rate: Frames a second of images; a video file has its own.

    Raises:
        ValueError: There is none, it is damaged, or a rate is given for a file that has one.
    """
    path = Path(name)
    is_pattern = any(mark in name for mark in "*?[") and not path.exists()
    is_image = path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES and path.suffix.lower() != ".gif"
    if path.is_dir() or is_pattern or is_image:
        return ImageSequence(name, rate or NAMED_RATE)
    if rate is not None:
        raise ValueError(f"{name} is a video with time stamps of its own; leave --fps out")
    if not path.exists() and "://" not in name and not name.startswith("/dev/"):
        raise ValueError(f"{name} does not exist; give a video file, a folder of images, or a pattern")
    return VideoFile(name)


class ImageSequence:
    """Images as frames, sorted by name."""

    def __init__(self, name: str, rate: Fraction) -> None:
        self.name, self.clock = name, Clock(1 / rate, rate)
        self.files = [path for path in list_images(name) if looks_like_image(path)]
        self.count: int | None = len(self.files)
        self.sound: Sound | None = None

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield the images."""
        for index, path in enumerate(self.files):
            levels = (read_image(path) * 255).round().to(torch.uint8).permute(1, 2, 0)
            yield VideoFrame(levels.contiguous().numpy(), index, index)

    def close(self) -> None:
        """Do nothing: no file stays open."""


@dataclass
class _Stamps:
    """Makes time stamps that only grow: a file may lack some, repeat them, or begin anew in the middle.

    Attributes:
        step: Usual time between two frames; what is more than two of them before the last frame is of a
            clock that began anew.
    """

    step: int
    last: int | None = None
    first: int | None = None

    def next(self, stamp: int | None) -> int:
        """Return the stamp of the next frame, counted from the first one."""
        if self.first is None:
            self.first = stamp or 0
        guess = 0 if self.last is None else self.last + self.step
        found = guess if stamp is None else stamp - self.first
        if self.last is not None and found <= self.last:
            if stamp is not None and found < self.last - 2 * self.step:
                self.first, found = stamp - guess, guess
            found = max(found, self.last + 1)
        self.last = found
        return found


class VideoFile:
    """A file, device or stream that FFmpeg opens; the first video stream of it."""

    def __init__(self, name: str) -> None:
        self.name, self._av = name, import_av()
        try:
            self._container: Any = self._av.open(name)
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            raise ValueError(f"{name} cannot be opened as a video ({_said(error)})") from None
        self.sound: Sound | None = None
        streams = self._container.streams.video
        if not streams:
            kinds = _kinds(self._container)
            self.close()
            raise ValueError(f"{name} has no pictures, only {kinds}; give a video")
        self._stream: Any = streams[0]
        self._stream.thread_type = "AUTO"
        rate = self._stream.average_rate or self._stream.guessed_rate or NAMED_RATE
        self.clock = Clock(Fraction(self._stream.time_base or 1 / rate), Fraction(rate))
        self.count: int | None = self._stream.frames or None
        if Path(name).is_file() and self._container.streams.audio:
            self.sound = Sound(name)

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield the frames, turned upright."""
        step = max(1, round(1 / (self.clock.rate * self.clock.unit)))
        stamps, index = _Stamps(step), 0
        frames = iter(self._container.decode(self._stream))
        while True:
            try:
                frame = next(frames, None)
                if frame is None:
                    break
                pixels = self._upright(frame)
            except (self._av.error.FFmpegError, OSError, ValueError) as error:
                raise ValueError(f"{self.name} is damaged after {index} frames ({_said(error)})") from None
            stamp = stamps.next(frame.pts)
            if self.sound is not None and not index:
                self.sound.start = (stamps.first or 0) * self.clock.unit
            yield VideoFrame(pixels, stamp, index)
            index += 1
        if not index:
            raise ValueError(f"{self.name} has no frame that can be read")

    def close(self) -> None:
        """Close the file."""
        self._container.close()
        if self.sound is not None:
            self.sound.close()

    def _upright(self, frame: Any) -> Any:
        if frame.width * frame.height > PIXELS:
            raise ValueError(f"a frame has {frame.width}x{frame.height} pixels")
        turns = round(getattr(frame, "rotation", 0) / TURN) % 4
        return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))


def _said(error: Exception) -> str:
    return shorten(getattr(error, "strerror", None) or error)


def _kinds(container: Any) -> str:
    kinds = sorted({stream.type for stream in container.streams})
    return " and ".join(kinds) or "nothing"
