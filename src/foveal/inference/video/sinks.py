"""Where labels go: a video of overlays or colours, or a folder of label maps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np
from PIL import Image
from torch import Tensor

from foveal.data.image import save_labels
from foveal.inference.video.frames import Clock, VideoFrame, import_av
from foveal.inference.video.sound import Sound
from foveal.storage.atomic import replacing
from foveal.storage.pictures import Colour, label_picture, lay_over
from foveal.storage.reading import shorten

CODECS = ("libx264", "mpeg4")
"""Encoders, the first that PyAV has is used."""
VIEWS = ("overlay", "labels")
SUFFIXES = (".mp4", ".m4v", ".mov")
FRAGMENTS = "frag_keyframe+empty_moov+default_base_moof"
"""A file that ends anywhere is playable up to its last fragment."""
LATER = "+delay_moov"
"""Sound: what its decoder needs is known from its first packets, and the file's head waits for them."""
SECONDS = 1
"""Length of a fragment, about [s]."""
QUALITY = {"crf": "20", "preset": "veryfast"}
MPEG4_BITS = 8
"""Bits a pixel and second at 25 frames, for the older encoder, which has no constant quality."""
MOST_UNITS = 65535
"""Time units a second that MPEG-4 can count."""


class Sink(Protocol):
    """Takes the labels of one frame after the other."""

    def write(self, frame: VideoFrame, labels: Tensor) -> None:
        """Write the labels [H, W], uint8, of a frame."""

    def close(self) -> None:
        """Finish: what was written can be read."""


def open_sink(
    out: Path, view: str, palette: Sequence[Colour], clock: Clock, sound: Sound | None = None
) -> Sink:
    """Prepare an output; nothing is written before the first frame.

    A video is written into a new file, which takes the place of the old one when the sink is closed.

    Args:
        out: A video file to write (.mp4, .m4v, .mov), or a folder for label maps (no suffix).
        view: "overlay", the labels over the frame; or "labels", their colours alone.
        palette: Colour of every class.
        clock: When frames are shown.
        sound: Sound to copy into a video file, which can carry it.

    Raises:
        ValueError: The suffix or the view is none of these, or the folder is not there.
    """
    if view not in VIEWS:
        raise ValueError(f"--view is '{view}'; give {' or '.join(VIEWS)}")
    if not out.suffix or out.is_dir():
        return LabelFolder(out, palette)
    if out.suffix.lower() not in SUFFIXES:
        raise ValueError(f"-o {out} is no {', '.join(SUFFIXES)}; give a file of that kind, or a folder")
    if not out.parent.is_dir():
        raise ValueError(f"-o {out} cannot be written; make the folder {out.parent} first")
    return VideoWriter(out, view, palette, clock, sound)


class LabelFolder:
    """Writes the label map of every frame as a palette PNG, exactly."""

    def __init__(self, folder: Path, palette: Sequence[Colour]) -> None:
        self.folder, self.palette = folder, palette

    def write(self, frame: VideoFrame, labels: Tensor) -> None:
        """Write one file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        save_labels(labels, self.folder / f"{frame.index:06d}_labels.png", self.palette)

    def close(self) -> None:
        """Do nothing: every file is complete."""


class VideoWriter:
    """Writes a fragmented MP4, H.264 if it can be had.

    The picture has the sides of the first frame, one more where they are odd: the edge is repeated. Later
    frames of another size are fitted into it. Sound is copied up to the end of the last frame.

    It grows in a hidden file beside `out`, which can be played wherever it ends, also after a kill. Closing
    puts it in the place of the old video, which is whole until then; a symbolic link is replaced. A device
    or a pipe is written itself. If a frame cannot be written, the old video stays; where there was none, what
    was encoded before takes its name.
    """

    def __init__(
        self, out: Path, view: str, palette: Sequence[Colour], clock: Clock, sound: Sound | None = None
    ) -> None:
        self.out, self.view, self.palette, self.clock, self.sound = out, view, palette, clock, sound
        self._av = import_av()
        self._place = ExitStack()
        self._file = out
        self._container: Any = None
        self._stream: Any = None
        self._heard: Any = None
        self._last, self._encoded = Fraction(0), 0

    def write(self, frame: VideoFrame, labels: Tensor) -> None:
        """Encode one frame.

        Raises:
            OSError: It cannot be written, or another process is writing the same video.
        """
        if self._container is None and not _is_device(self.out):
            self._file = self._place.enter_context(replacing(self.out, wait=False))
        try:
            if self._container is None:
                self._open(*frame.size)
            picture = self._fitted(self._drawn(frame, labels))
            made = self._av.VideoFrame.from_ndarray(picture, format="rgb24")
            self._last = frame.stamp * self.clock.unit
            made.pts, made.time_base = round(self._last / self._unit), self._unit
            self._encoded += 1
            self._container.mux(self._stream.encode(made))
            self._hear(self._last)
        except (self._av.error.FFmpegError, OSError) as error:
            self._fail(error)

    def close(self) -> None:
        """Encode what is left, close the file and put it in its place; without a frame nothing changes.

        Raises:
            OSError: It cannot be written.
        """
        if self._container is None or not self._encoded:
            self._let_go()
            return
        try:
            self._container.mux(self._stream.encode(None))
            self._hear(self._last + 1 / self.clock.rate)
            self._container.close()
        except (self._av.error.FFmpegError, OSError) as error:
            self._fail(error)
        self._container = None
        self._place.close()

    def _fail(self, error: Exception) -> NoReturn:
        """Let the new video go, or keep it where there is no old one; say which.

        Raises:
            OSError: Always.
        """
        self._end_file()
        said = f"{self.out} cannot be written ({_reason(error)})"
        if self._file != self.out:
            if os.path.lexists(self.out):
                said += "; the old one is as it was"
            elif self._is_playable():
                with suppress(OSError):
                    self._place.close()
                    said += "; what was encoded before is in it"
        self._let_go()
        raise OSError(said) from None

    def _let_go(self) -> None:
        """Delete the new file, if it has not taken its place."""
        self._end_file()
        with suppress(OSError):
            self._place.__exit__(OSError, OSError(), None)

    def _end_file(self) -> None:
        """Close the file, whatever became of it."""
        container, self._container = self._container, None
        with suppress(self._av.error.FFmpegError, OSError):
            if container is not None:
                container.close()

    def _is_playable(self) -> bool:
        """Whether the new video has a frame."""
        try:
            with self._av.open(str(self._file)) as container:
                return next(container.decode(video=0), None) is not None
        except (self._av.error.FFmpegError, OSError, IndexError):
            return False

    def _hear(self, seconds: Fraction) -> None:
        """Copy the sound up to a time [s]."""
        for packet in self.sound.until(seconds) if self.sound is not None else ():
            packet.stream = self._heard
            self._container.mux(packet)

    def _open(self, height: int, width: int) -> None:
        codec = next(name for name in CODECS if name in self._av.codecs_available)
        self._unit = max(self.clock.unit, Fraction(1, MOST_UNITS))
        options = {"movflags": FRAGMENTS + (LATER if self.sound is not None else ""), "flush_packets": "1"}
        container = self._av.open(str(self._file), "w", format="mp4", options=options)
        stream = container.add_stream(codec, rate=self.clock.rate.limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        stream.codec_context.time_base = self._unit
        stream.codec_context.gop_size = max(1, round(self.clock.rate * SECONDS))
        if codec == "libx264":
            stream.options = QUALITY
        else:
            stream.bit_rate = MPEG4_BITS * width * height
        if self.sound is not None:
            self._heard = self.sound.stream_in(container)
        self._container, self._stream = container, stream

    def _drawn(self, frame: VideoFrame, labels: Tensor) -> Image.Image:
        if self.view == "labels":
            return label_picture(labels, self.palette).convert("RGB")
        return lay_over(labels, self.palette, frame.pixels.transpose(2, 0, 1), 0.5)

    def _fitted(self, picture: Image.Image) -> Any:
        """Bring a picture to the sides of the video."""
        wide, high = self._stream.width, self._stream.height
        if not (0 <= wide - picture.width <= 1 and 0 <= high - picture.height <= 1):
            picture = picture.resize((wide, high))
        rim = ((0, high - picture.height), (0, wide - picture.width), (0, 0))
        return np.ascontiguousarray(np.pad(np.asarray(picture), rim, mode="edge"))


def _is_device(path: Path) -> bool:
    """Whether a path is a device or a pipe, also by a link: such a one is written itself, nothing is lost."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _reason(error: Exception) -> str:
    """Say what the system said, without the name of the hidden file."""
    return shorten(getattr(error, "strerror", None) or error)
