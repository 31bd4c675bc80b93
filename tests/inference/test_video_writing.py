"""A video that is written: the old one is whole until the end, links are not followed, nothing is lost."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import forked
from commands import lines_of, small_model
from foveal.data.image import save_image
from foveal.data.pairs import default_palette
from foveal.inference.video import Clock, Sink, VideoFrame, open_sink
from videos import read

av: Any = pytest.importorskip("av")
SIZE = (48, 64)
PALETTE = default_palette(5)
CLOCK = Clock(Fraction(1, 2), Fraction(2))
"""Two frames a second: a fragment has two."""
PART = ".out.part.mp4"
needs_signals = pytest.mark.skipif(os.name == "nt", reason="processes are ended by signals")


def begin(out: Path) -> Sink:
    return open_sink(out, "overlay", PALETTE, CLOCK)


def add(sink: Sink, count: int, first: int = 0) -> None:
    for k in range(first, first + count):
        noise = np.random.default_rng(k).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
        sink.write(VideoFrame(noise, k, k), torch.randint(0, 5, SIZE, dtype=torch.uint8))


def played(path: Path) -> int:
    """Count the frames that a player shows of a file that ends anywhere."""
    count = 0
    with av.open(str(path)) as file:
        try:
            for _ in file.decode(video=0):
                count += 1
        except av.error.FFmpegError:
            pass
    return count


def test_the_old_video_is_whole_until_the_new_one_is(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    out.write_bytes(b"old")
    out.chmod(0o640)
    sink = begin(out)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    add(sink, 40)
    assert out.read_bytes() == b"old" and played(tmp_path / PART) >= 2
    sink.close()
    sink.close()  # once more is nothing
    assert len(read(out)) == 40 and out.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_replaced_and_not_followed(there: bool, tmp_path: Path) -> None:
    out, target = tmp_path / "out.mp4", tmp_path / "target.mp4"
    if there:
        target.write_bytes(b"precious")
    out.symlink_to(target)
    sink = begin(out)
    add(sink, 3)
    sink.close()
    assert not out.is_symlink() and len(read(out)) == 3
    assert target.read_bytes() == b"precious" if there else not target.exists()


def test_without_a_frame_nothing_changes(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    out.write_bytes(b"old")
    begin(out).close()
    sink = begin(out)
    with pytest.raises(ValueError, match="give the colour image"):
        sink.write(VideoFrame(np.zeros((*SIZE, 3), np.uint8), 0, 0), None)  # type: ignore[arg-type]
    sink.close()
    assert out.read_bytes() == b"old" and [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without pipes of a name")
@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_is_written_itself(linked: bool, tmp_path: Path) -> None:
    pipe = tmp_path / "out.mp4"
    os.mkfifo(tmp_path / "pipe" if linked else pipe)
    if linked:
        pipe.symlink_to(tmp_path / "pipe")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
    reader.start()
    sink = begin(pipe)
    add(sink, 5)
    sink.close()
    reader.join(30)
    assert pipe.is_fifo() and not (tmp_path / PART).exists()
    (tmp_path / "got.mp4").write_bytes(got[0])
    assert len(read(tmp_path / "got.mp4")) == 5


@pytest.mark.skipif(os.name == "nt", reason="no locks there")
def test_two_writers_of_a_video_do_not_mix(tmp_path: Path) -> None:
    first, second = begin(tmp_path / "out.mp4"), begin(tmp_path / "out.mp4")
    add(first, 3)
    with pytest.raises(OSError, match=r"^\S*out\.mp4 cannot be written \(another process is writing it\)$"):
        add(second, 1)
    second.close()
    first.close()
    assert len(read(tmp_path / "out.mp4")) == 3


def on_a_small_disk(out: str, most: int) -> None:
    """Write a video in a process whose files may not grow beyond a size [B]."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    sink = begin(Path(out))
    try:
        add(sink, 200)
        sink.close()
    except OSError as error:
        sys.stdout.write(str(error))
        sink.close()
        sys.exit(2)


@needs_signals
@pytest.mark.parametrize(("old", "most"), [(True, 100_000), (False, 100_000), (False, 1000)])
def test_a_full_disk_loses_neither_the_old_video_nor_the_new_one(
    old: bool, most: int, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / "out.mp4"
    if old:
        out.write_bytes(b"old")
    process = forked.start(tmp_path, on_a_small_disk, str(out), most)
    assert process.wait(120) == 2, process.stderr
    said = f"{out} cannot be written (File too large)"
    kept = not old and most > 1000
    more = "; the old one is as it was" if old else "; what was encoded before is in it" if kept else ""
    assert process.stdout == said + more
    assert [path.name for path in out.parent.iterdir()] == ["out.mp4"] * (old or kept)
    if old:
        assert out.read_bytes() == b"old"
    elif kept:
        assert played(out) >= 2


@needs_signals
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"])
def test_a_signal_ends_the_video_there(name: str, tmp_path: Path) -> None:
    if signal.getsignal(getattr(signal, name)) == signal.SIG_IGN:
        pytest.skip(f"{name} is ignored here, as under nohup, and stays so")
    frames, out = tmp_path / "frames", tmp_path / "out.mp4"
    frames.mkdir()
    for k in range(400):
        save_image(torch.full((3, 64, 96), (k % 40) / 40), frames / f"{k:03d}.png")
    out.write_bytes(b"old")
    words = ("video", frames, "-o", out, "--model", small_model(tmp_path), "--fps", 2, "--json")
    process = forked.start(tmp_path, forked.command, *words)
    end, enough = time.monotonic() + 100, 60
    while process.stdout.count("\n") < enough and process.returncode is None:
        assert time.monotonic() < end, process.stderr
        time.sleep(0.01)
    assert out.read_bytes() == b"old"
    number = getattr(signal, name)
    os.kill(process.process.pid or 0, number)
    code = process.wait(100)
    if number == signal.SIGKILL:
        assert code == -number and out.read_bytes() == b"old"
        assert 10 < played(tmp_path / PART) < 400
        return
    assert code == 128 + number, process.stderr
    assert "interrupted, wrote" in process.stderr and "Traceback" not in process.stderr
    rows = len(lines_of(process.stdout))
    assert enough <= rows < 400 and len(read(out)) in (rows, rows + 1)
    assert not (tmp_path / PART).exists()
