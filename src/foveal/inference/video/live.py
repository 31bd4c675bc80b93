"""Frames that do not wait: of those that come faster than they are done, the oldest are dropped."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

from foveal.inference.video.frames import Clock, VideoFrame
from foveal.inference.video.sources import Source

WAITING = 2
"""Frames that wait at most: one to go on with at once, and one for a moment that takes longer."""
LIVE = ("rtp", "rtsp", "rtsps", "rtmp", "rtmps", "srt", "tcp", "udp")
"""Protocols of streams that do not wait; files may come over others."""
PATIENCE = 2.0
"""Time that a reader has to stop [s]."""


class Live:
    """Reads a source in a thread of its own, and yields the newest frames alone.

    Memory is bounded by the frames that wait. A frame says how many were dropped before it. An error of the
    source is raised after the frames that came before it.

    Args:
        source: Where frames come from; it is closed with this.
        waiting: Frames that wait at most.
    """

    def __init__(self, source: Source, waiting: int = WAITING) -> None:
        self.name, self.clock, self.count = source.name, source.clock, source.count
        self.sound, self.dropped = source.sound, 0
        self._source, self._waiting, self._most = source, deque[VideoFrame](), waiting
        self._news, self._ended, self._stopped = threading.Condition(), False, False
        self._error: Exception | None = None
        self._reader = threading.Thread(target=self._read, name=f"frames of {source.name}", daemon=True)

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield the frames that are not dropped, as soon as they are there."""
        before = self.dropped
        if self._reader.ident is None:
            self._reader.start()
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting or self._ended)
                frame = self._waiting.popleft() if self._waiting else None
                lost, before = self.dropped - before, self.dropped
            if frame is None:
                break
            yield replace(frame, dropped=lost)
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Stop reading and close the source; one that does not answer is left to the end of the process."""
        with self._news:
            self._stopped = True
        if self._reader.is_alive():
            self._reader.join(PATIENCE)
        if not self._reader.is_alive():
            self._source.close()

    def _read(self) -> None:
        try:
            for frame in self._source:
                with self._news:
                    if self._stopped:
                        break
                    self._waiting.append(frame)
                    if len(self._waiting) > self._most:
                        self._waiting.popleft()
                        self.dropped += 1
                    self._news.notify()
        except Exception as error:  # raised again where the frames are used
            self._error = error
        finally:
            with self._news:
                self._ended = True
                self._news.notify()


class Played:
    """Frames of a file at their own times, as a camera would give them.

    Args:
        source: The file; it is closed with this.
        now: Returns the time [s].
        sleep: Waits [s].
    """

    def __init__(
        self,
        source: Source,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name, self.clock, self.count, self.sound = source.name, source.clock, source.count, source.sound
        self._source, self._now, self._sleep = source, now, sleep

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield every frame when it is shown; one that is late at once."""
        start = self._now()
        for frame in self._source:
            early = start + seconds_of(frame, self.clock) - self._now()
            if early > 0:
                self._sleep(early)
            yield frame

    def close(self) -> None:
        """Close the file."""
        self._source.close()


def seconds_of(frame: VideoFrame, clock: Clock) -> float:
    """Return when a frame is shown, counted from the first one [s]."""
    return float(frame.stamp * clock.unit)


def is_live(name: str) -> bool:
    """Whether frames come from a device or over a protocol of live streams, which do not wait."""
    scheme, mark, _ = name.partition("://")
    return name.startswith("/dev/") or (bool(mark) and scheme.lower() in LIVE)
