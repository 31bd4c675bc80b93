"""Frames that do not wait: the oldest are dropped, what waits is bounded, files keep all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest

from conformance import make
from foveal.inference.video import Clock, Live, Played, VideoFrame, is_live, segment_frames
from samples import error_of


class Camera:
    """Gives frames as fast as they are taken, in bursts: the next burst when it is told so.

    Args:
        bursts: Numbers of frames.
        error: What it ends in.
    """

    name, count, sound = "camera", None, None
    clock = Clock(Fraction(1, 10), Fraction(10))

    def __init__(self, *bursts: int, error: str = "") -> None:
        self.bursts, self.error, self.closed = bursts, error, False
        self.go, self.given = threading.Semaphore(0), threading.Semaphore(0)

    def __iter__(self) -> Iterator[VideoFrame]:
        index = 0
        for burst in self.bursts:
            assert self.go.acquire(timeout=20)
            for _ in range(burst):
                yield VideoFrame(np.full((32, 32, 3), index % 256, np.uint8), index, index)
                index += 1
            self.given.release()  # the reader comes back for more: it has the burst
        if self.error:
            raise ValueError(self.error)

    def close(self) -> None:
        self.closed = True

    def burst(self) -> None:
        self.go.release()
        assert self.given.acquire(timeout=20)


def test_the_oldest_are_dropped_and_counted() -> None:
    camera = Camera(1, 1000, 1)
    live = Live(camera, waiting=2)
    frames = iter(live)
    first = threading.Thread(target=camera.burst)
    first.start()
    assert next(frames).index == 0
    first.join()
    camera.burst()  # a thousand frames while one is segmented
    found = [next(frames), next(frames)]
    assert [(frame.index, frame.dropped) for frame in found] == [(999, 998), (1000, 0)]
    camera.burst()
    assert [(frame.index, frame.dropped) for frame in frames] == [(1001, 0)]
    assert live.dropped == 998 and list(live) == []
    live.close()
    assert camera.closed


def test_a_slow_method_sees_the_newest_frames_and_memory_stays() -> None:
    camera = Camera(1, *[40] * 5)
    method, live = make("video_coarse_to_fine", budget=0.6), Live(camera)
    camera.go.release()
    rows = []
    for result in segment_frames(method, live):
        rows.append(result.row(camera.clock))
        assert len(live._waiting) <= 2
        if len(rows) == 1:
            assert camera.given.acquire(timeout=20)
        if len(rows) % 2 == 1 and len(rows) < 11:  # 40 more come while it works
            camera.burst()
    assert [row.frame for row in rows] == [0, 39, 40, 79, 80, 119, 120, 159, 160, 199, 200]
    assert [row.dropped for row in rows] == [0, *[38, 0] * 5] and live.dropped == 190
    assert rows[-1].seconds == 20.0  # times are those of the camera
    live.close()


def test_an_error_comes_after_the_frames_before_it() -> None:
    camera, seen = Camera(2, error="the camera fell"), []
    camera.go.release()
    live = Live(camera)
    assert "the camera fell" in error_of(lambda: seen.extend(iter(live)))
    assert [frame.index for frame in seen] == [0, 1]


def test_closing_stops_the_reader_and_one_that_hangs_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = Camera(1, 5)
    live = Live(camera)
    camera.go.release()
    assert next(iter(live)).index == 0 and camera.given.acquire(timeout=20)
    monkeypatch.setattr("foveal.inference.video.live.PATIENCE", 0.05)
    live.close()  # it waits for the next burst
    assert not camera.closed
    camera.go.release()
    live._reader.join(20)
    assert not live._reader.is_alive() and len(live._waiting) == 0
    live.close()
    assert camera.closed


def test_a_file_is_played_at_its_own_times() -> None:
    camera, clock = Camera(4), [100.0]
    camera.go.release()
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(round(seconds, 6))
        clock[0] += seconds

    shown = []
    for frame in Played(camera, lambda: clock[0], sleep):
        shown.append(round(clock[0] - 100, 6))
        clock[0] += 0.25 if frame.index == 1 else 0.0  # a frame that takes long
    assert shown == [0.0, 0.1, 0.35, 0.35] and slept == [0.1]


@pytest.mark.parametrize(
    ("name", "live"),
    [
        ("/dev/video0", True),
        ("rtsp://camera/1", True),
        ("RTMP://host/app", True),
        ("https://host/a.mp4", False),
        ("a.mp4", False),
        ("folder/*.png", False),
    ],
)
def test_devices_and_live_streams_do_not_wait(name: str, live: bool) -> None:
    assert is_live(name) is live
