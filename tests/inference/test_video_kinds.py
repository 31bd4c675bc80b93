"""Files of every kind: turned, deep, transparent, odd, empty, cut, of two sizes: right, or one sentence."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commands import lines_of, refused, run, small_model
from foveal.inference.video import VideoFrame, open_source
from samples import error_of
from videos import read

av: Any = pytest.importorskip("av")
SIZE = (48, 64)
BRIGHT = 220


def drawn(index: int, size: tuple[int, int], alpha: bool = False) -> np.ndarray:
    """Draw a frame, brighter at the top left."""
    found = np.full((*size, 3), 20 + index % 40, np.uint8)
    found[: (size[0] + 1) // 2, : (size[1] + 1) // 2] = BRIGHT
    return np.concatenate([found, np.full((*size, 1), 90, np.uint8)], 2) if alpha else found


def write(path: Path, frames: int, size: tuple[int, int] = SIZE, **wishes: Any) -> Path:
    """Write a video."""
    kind = "rgba" if wishes.get("alpha") else "rgb24"
    with av.open(str(path), "w", format=wishes.get("format")) as out:
        stream = out.add_stream(wishes.get("codec", "libx264"), rate=30)
        stream.width, stream.height = size[1], size[0]
        stream.pix_fmt = wishes.get("pix_fmt", "yuv420p")
        if "turned" in wishes:
            stream.set_display_rotation(wishes["turned"])
        out.start_encoding()
        for k in range(frames):
            frame = av.VideoFrame.from_ndarray(drawn(k, size, kind == "rgba"), format=kind)
            frame.pts, frame.time_base = k, Fraction(1, 30)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def corners(frame: VideoFrame) -> list[bool]:
    """Say which corners are bright: top left, top right, bottom left, bottom right."""
    return [bool(frame.pixels[row, column].mean() > 120) for row in (0, -1) for column in (0, -1)]


@pytest.mark.parametrize(
    ("turned", "size", "bright"),
    [(90, (64, 48), 2), (-90, (64, 48), 1), (180, (48, 64), 3), (0, (48, 64), 0)],
)
@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mov", "mpeg4")])
def test_files_that_say_they_are_turned_come_upright(
    name: str, codec: str, turned: int, size: tuple[int, int], bright: int, tmp_path: Path
) -> None:
    frame = read(write(tmp_path / name, 2, codec=codec, turned=turned))[0]
    assert frame.size == size and corners(frame) == [k == bright for k in range(4)]


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "size"),
    [
        ("a.mov", "png", "rgba", SIZE),
        ("a.mov", "qtrle", "argb", SIZE),
        ("a.mkv", "ffv1", "yuva420p", SIZE),
        ("a.mkv", "ffv1", "yuv420p10le", SIZE),
        ("a.mkv", "ffv1", "rgb48le", SIZE),
        ("a.mkv", "ffv1", "gray16le", SIZE),
        ("a.mp4", "libx264", "yuv444p", (33, 47)),
        ("a.mp4", "mpeg4", "yuv420p", (33, 47)),
        ("a.mkv", "ffv1", "yuv444p", (1, 1)),
    ],
)
def test_any_pixels_and_any_size_become_colour(
    name: str, codec: str, pix_fmt: str, size: tuple[int, int], tmp_path: Path
) -> None:
    alpha = "a" in pix_fmt.removeprefix("gray")
    frames = read(write(tmp_path / name, 3, size, codec=codec, pix_fmt=pix_fmt, alpha=alpha))
    assert [frame.size for frame in frames] == [size] * 3
    assert abs(int(frames[0].pixels[0, 0].mean()) - BRIGHT) < 8
    if min(size) > 1:
        assert abs(int(frames[2].pixels[-1, -1].mean()) - 22) < 8


def test_one_frame_and_none(tmp_path: Path) -> None:
    assert len(read(write(tmp_path / "one.mp4", 1))) == 1
    for name in ("none.mp4", "none.mkv"):
        message = error_of(lambda n=name: read(write(tmp_path / n, 0)))
        said = ("no frame that can be read", "has no pictures", "cannot be opened as a video")
        assert name in message and any(part in message for part in said)


@pytest.mark.parametrize("name", ["a.h264", "a.ts"])
def test_a_size_that_changes_in_mid_stream_is_a_new_scene(name: str, tmp_path: Path) -> None:
    kind = {"a.h264": "h264", "a.ts": "mpegts"}[name]
    parts = [
        write(tmp_path / f"{k}.{kind}", 5, size, format=kind) for k, size in enumerate(((48, 64), (64, 96)))
    ]
    path = tmp_path / name
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    source = open_source(str(path))
    frames = list(source)
    assert [frame.size for frame in frames] == [(48, 64)] * 5 + [(64, 96)] * 5
    times = [float(frame.stamp * source.clock.unit) for frame in frames]
    steps = np.diff(times)  # the clock of a transport stream begins anew
    assert steps.min() > 0.02 and steps.max() < 0.08
    out = tmp_path / "out.mp4"
    result = run("video", path, "-o", out, "--model", small_model(tmp_path), "--json")
    rows = lines_of(result.stdout)
    assert [tuple(row["size"]) for row in rows] == [frame.size for frame in frames]
    assert rows[5]["work"] == 1.0  # nothing is remembered of the other size
    assert [frame.size for frame in read(out)] == [(48, 64)] * 10


def test_stamps_that_repeat_or_lack_only_grow(tmp_path: Path) -> None:
    from foveal.inference.video.sources import _Stamps

    stamps = _Stamps(step=10)
    assert [stamps.next(stamp) for stamp in (50, 60, 60, None, 90, 85)] == [0, 10, 11, 21, 40, 41]
    assert [stamps.next(stamp) for stamp in (-500, -490, -470)] == [51, 61, 81]  # a clock that began anew


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_a_file_that_is_cut_gives_the_frames_before_or_one_sentence(name: str, tmp_path: Path) -> None:
    whole = write(tmp_path / f"whole_{name}", 60, (96, 128)).read_bytes()
    path = tmp_path / name
    path.write_bytes(whole[: len(whole) * 2 // 3])
    call = ("video", path, "-o", tmp_path / "maps", "--model", small_model(tmp_path), "--quiet")
    result = run(*call)
    if result.exit_code:
        assert name in refused(result)
    else:
        assert 1 <= len(list((tmp_path / "maps").glob("*.png"))) <= 60


def test_a_file_without_frames_is_one_sentence_of_the_command(tmp_path: Path) -> None:
    model = small_model(tmp_path)
    path = write(tmp_path / "none.mkv", 0)
    assert "none.mkv" in refused(run("video", path, "-o", tmp_path / "out.mp4", "--model", model, "--quiet"))
    assert not (tmp_path / "out.mp4").exists()
