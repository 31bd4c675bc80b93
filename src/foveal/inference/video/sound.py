"""Sound of a video file, as packets that are copied without being decoded."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from foveal.inference.video.frames import import_av

CARRIED = ("aac", "ac3", "alac", "eac3", "flac", "mp3", "opus")
"""Codecs whose packets go into an MP4 as they are, and are played there."""


class Sound:
    """The first audio stream of a file, read beside the frames by a handle of its own.

    So nothing waits in memory, however frames and sound are interleaved.

    Args:
        name: The file.

    Attributes:
        codec: Name of its codec.
        start: Time in the file at which the first frame is shown [s]; times of packets count from there.
    """

    def __init__(self, name: str) -> None:
        self._av = import_av()
        self._container: Any = self._av.open(name)
        self._stream: Any = self._container.streams.audio[0]
        self._packets: Any = iter(self._container.demux(self._stream))
        self._next: Any = None
        self._filter: Any = None
        self.codec: str = self._stream.codec_context.name.removesuffix("float")
        self.start, self._last = Fraction(0), Fraction(-1, 10**6)

    @property
    def refusal(self) -> str:
        """Why it cannot be copied into an MP4, in a sentence; empty if it can be."""
        if self.codec in CARRIED:
            return ""
        return f"the sound is {self.codec}, which is not copied into an MP4 ({', '.join(CARRIED)} are)"

    def stream_in(self, container: Any) -> Any:
        """Add a stream for it to a container that is written."""
        made = container.add_stream_from_template(self._stream)
        if self.codec == "aac" and not self._stream.codec_context.extradata:
            # In transport streams every packet has a header; in an MP4 its content is said once.
            filters = self._av.bitstream.BitStreamFilterContext
            self._filter = filters("aac_adtstoasc", self._stream)
        return made

    def until(self, seconds: Fraction) -> list[Any]:
        """Return the next packets that begin before a time [s]; where the sound is damaged, it ends.

        What begins before the first frame is left out, so that both begin together; and what does not begin
        after the packet before it.
        """
        found: list[Any] = []
        while (packet := self._next or self._read()) is not None:
            unit = Fraction(packet.time_base)
            begins = packet.pts * unit - self.start
            if begins >= seconds:
                self._next = packet
                break
            self._next = None
            if begins > self._last:
                self._last = begins
                moved = round(self.start / unit)
                packet.pts -= moved
                packet.dts = packet.pts if packet.dts is None else packet.dts - moved
                found += [packet] if self._filter is None else self._filter.filter(packet)
        return found

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _read(self) -> Any:
        """Return the next packet that has a time; None at the end."""
        try:
            return next((packet for packet in self._packets if packet.pts is not None), None)
        except (self._av.error.FFmpegError, OSError, ValueError):
            return None
