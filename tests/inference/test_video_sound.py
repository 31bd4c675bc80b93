"""Sound passes through: the same packets, in step with the frames, or one sentence."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from commands import lines_of, run, small_model
from foveal.data.pairs import default_palette
from foveal.inference.video import Live, Played, open_sink, open_source

av: Any = pytest.importorskip("av")
PALETTE = default_palette(5)
SIZE = (48, 64)


def write(
    path: Path,
    codec: str = "aac",
    frames: tuple[float, float] = (0.0, 2.0),
    sound: tuple[float, float] = (0.0, 2.0),
) -> Path:
    """Write a video of 10 frames a second, and noise that is heard, from and to some times [s]."""
    rate = 48000
    with av.open(str(path), "w") as out:
        video, audio = out.add_stream("libx264", rate=10), out.add_stream(codec, rate=rate)
        video.width, video.height, video.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        audio.layout = "mono"
        video.codec_context.time_base = Fraction(1, 1000)
        for k in range(round((frames[1] - frames[0]) * 10)):
            picture = av.VideoFrame.from_ndarray(np.full((*SIZE, 3), 10 * k % 250, np.uint8), format="rgb24")
            picture.pts, picture.time_base = round(1000 * frames[0]) + 100 * k, Fraction(1, 1000)
            out.mux(video.encode(picture))
        out.mux(video.encode(None))
        step = audio.codec_context.frame_size or 1024
        kind = audio.codec_context.format.name
        for k in range(int((sound[1] - sound[0]) * rate / step)):
            noise = np.random.default_rng(k).uniform(-0.2, 0.2, (1, step))
            whole = {"s16": np.int16, "s32": np.int32}.get(kind[:3])
            samples = (
                noise.astype(np.float32) if whole is None else (noise * np.iinfo(whole).max).astype(whole)
            )
            heard = av.AudioFrame.from_ndarray(samples, format=kind, layout="mono")
            heard.rate, heard.time_base = rate, Fraction(1, rate)
            heard.pts = round(sound[0] * rate) + k * step
            out.mux(audio.encode(heard))
        out.mux(audio.encode(None))
    return path


def packets(path: Path) -> list[tuple[float, bytes]]:
    """Return when every packet of sound begins, counted from the first frame [s], and its bytes."""
    with av.open(str(path)) as file:
        first = next(frame for frame in file.decode(video=0))
        start = first.pts * first.time_base
    with av.open(str(path)) as file:
        found = [p for p in file.demux(audio=0) if p.pts is not None]
        return [(float(p.pts * p.time_base - start), bytes(p)) for p in found]


def copy(path: Path, out: Path, limit: int | None = None) -> Path:
    """Write labels beside the sound of a video."""
    source = open_source(str(path))
    sink = open_sink(out, "labels", PALETTE, source.clock, source.sound)
    for frame in source:
        if limit is None or frame.index < limit:
            sink.write(frame, torch.zeros(SIZE, dtype=torch.uint8))
    sink.close()
    source.close()
    return out


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        ("aac", "mp4"),
        ("aac", "ts"),
        ("libmp3lame", "mp4"),
        ("libopus", "mkv"),
        ("flac", "mkv"),
        ("ac3", "mkv"),
    ],
)
def test_packets_are_copied_and_stay_in_step(codec: str, suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"in.{suffix}", codec)
    given, found = packets(path), packets(copy(path, tmp_path / "out.mp4"))
    kept = [pair for pair in given if pair[0] >= 0 and pair[0] < 2.0]
    assert 0 <= len(kept) - len(found) <= 1 or suffix == "ts"
    times = dict.fromkeys(round(when, 2) for when, _ in found)
    assert all(any(abs(when - other) < 0.011 for other in times) for when, _ in kept[:-1])
    with av.open(str(tmp_path / "out.mp4")) as file:  # it can be played
        heard = [frame for frame in file.decode(audio=0)]
    assert sum(frame.samples for frame in heard) / heard[0].sample_rate == pytest.approx(2.0, abs=0.1)
    if suffix != "ts":  # there a packet of sound has a header of its own, which an MP4 has once
        assert [data for _, data in found] == [data for _, data in kept][: len(found)]


@pytest.mark.parametrize(
    ("frames", "sound", "begins", "ends"),
    [
        ((5.0, 7.0), (5.0, 7.0), 0.0, 2.0),  # the clock of the file does not begin at 0
        ((1.0, 3.0), (0.0, 3.0), 0.0, 2.0),  # sound before the first frame is left out
        ((0.0, 3.0), (1.0, 2.0), 1.0, 2.0),  # sound that begins later and ends earlier
        ((0.0, 1.0), (0.0, 3.0), 0.0, 1.0),  # sound beyond the last frame is left out
    ],
)
def test_sound_begins_and_ends_with_the_frames(
    frames: tuple[float, float], sound: tuple[float, float], begins: float, ends: float, tmp_path: Path
) -> None:
    path = write(tmp_path / "in.mkv", "flac", frames, sound)
    found = packets(copy(path, tmp_path / "out.mp4"))
    assert found[0][0] == pytest.approx(begins, abs=0.1) and found[0][0] >= begins - 1e-6
    assert found[-1][0] == pytest.approx(ends, abs=0.2) and found[-1][0] < ends
    given = dict((data, when) for when, data in packets(path))
    assert all(given[data] == pytest.approx(when, abs=0.002) for when, data in found)


def test_a_video_that_is_cut_short_has_as_much_sound(tmp_path: Path) -> None:
    path = write(tmp_path / "in.mp4")
    assert packets(copy(path, tmp_path / "out.mp4", limit=5))[-1][0] < 0.5


def test_the_sound_of_dropped_frames_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "in.mp4")
    source = Live(Played(open_source(str(path)), lambda: 0.0, lambda seconds: None))
    sink = open_sink(tmp_path / "out.mp4", "labels", PALETTE, source.clock, source.sound)
    last = 0
    for frame in source:
        sink.write(frame, torch.zeros(SIZE, dtype=torch.uint8))
        last = frame.index
    sink.close()
    source.close()
    assert last == 19 and packets(tmp_path / "out.mp4")[-1][0] > 1.9


def test_the_command_copies_sound_or_says_why_not(tmp_path: Path) -> None:
    model = small_model(tmp_path)
    for name, codec, said in (("a.mp4", "aac", ""), ("b.mkv", "pcm_s16le", "is not copied into an MP4")):
        path, out = write(tmp_path / name, codec), tmp_path / f"{name}.mp4"
        result = run("video", path, "-o", out, "--model", model, "--json")
        assert result.exit_code == 0 and len(lines_of(result.stdout)) == 20
        assert said in result.stderr
        with av.open(str(out)) as file:
            assert len(file.streams.audio) == (0 if said else 1)
        quiet = run("video", path, "-o", out, "--model", model, "--quiet", "--limit", 1)
        assert quiet.exit_code == 0 and quiet.output == ""
