"""Videos in and out: every frame once, upright, at its time; whatever is wrong is one sentence."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conformance import make
from foveal.data.image import read_labels, save_image
from foveal.data.pairs import default_palette
from foveal.inference.video import Clock, VideoFrame, open_sink, open_source, segment_frames
from foveal.tiles.video import VideoMemory
from samples import error_of
from videos import read

av: Any = pytest.importorskip("av")
SIZE = (48, 64)
PALETTE = default_palette(5)


def pixels(index: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Draw a frame that tells its number, brighter at the top left."""
    found = np.full((*size, 3), 20 + 8 * index, np.uint8)
    found[: size[0] // 2, : size[1] // 2] = 220
    return found


def write(
    path: Path, stamps: list[int], size: tuple[int, int] = SIZE, codec: str = "libx264", **wishes: Any
) -> Path:
    """Write a video whose frames have these time stamps [1/30 s]."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=30)
        stream.width, stream.height = size[1], size[0]
        stream.pix_fmt = wishes.get("pix_fmt", "yuv420p")
        stream.codec_context.time_base = Fraction(1, 30)
        for k, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(pixels(k, size), format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 30)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def seconds(path: Path) -> list[float]:
    source = open_source(str(path))
    return [round(float(frame.stamp * source.clock.unit), 3) for frame in source]


def test_frames_come_in_order_with_their_times(tmp_path: Path) -> None:
    stamps = [0, 1, 2, 5, 6, 12]  # a rate that varies
    path = write(tmp_path / "a.mp4", stamps)
    frames = read(path)
    assert [frame.index for frame in frames] == list(range(6))
    assert seconds(path) == [round(s / 30, 3) for s in stamps]
    for k, frame in enumerate(frames):
        assert frame.size == SIZE and frame.pixels.dtype == np.uint8
        assert abs(int(frame.pixels[40, 50].mean()) - (20 + 8 * k)) < 8
    image = frames[0].image
    assert image.shape == (1, 3, *SIZE) and 0 <= float(image.min()) <= float(image.max()) <= 1


@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuv420p10le"])
def test_other_pixels_become_colour(pix_fmt: str, tmp_path: Path) -> None:
    frame = read(write(tmp_path / "a.mp4", [0, 1], pix_fmt=pix_fmt))[0]
    assert frame.pixels.shape == (*SIZE, 3) and frame.pixels[5, 5].mean() > 200


def test_transparent_animations_are_read(tmp_path: Path) -> None:
    from PIL import Image

    parts = [Image.fromarray(pixels(k)).convert("RGBA") for k in range(3)]
    parts[0].save(tmp_path / "a.gif", save_all=True, append_images=parts[1:], duration=40)
    assert [frame.size for frame in read(tmp_path / "a.gif")] == [SIZE] * 3


class Turned:
    """A decoded frame that says it must be turned."""

    def __init__(self, rotation: int) -> None:
        self.rotation, self.height, self.width = rotation, *SIZE

    def to_ndarray(self, format: str) -> np.ndarray:
        return pixels(0)


@pytest.mark.parametrize(
    ("rotation", "bright", "size"),
    [(0, (2, 2), (48, 64)), (-90, (2, -3), (64, 48)), (90, (-3, 2), (64, 48)), (180, (-3, -3), (48, 64))],
)
def test_frames_are_turned_upright(
    rotation: int, bright: tuple[int, int], size: tuple[int, int], tmp_path: Path, monkeypatch: Any
) -> None:
    """A rotation counts counterclockwise, as FFmpeg says it: a camera held upright writes -90."""
    source = open_source(str(write(tmp_path / "a.mp4", [0])))
    monkeypatch.setattr(source, "_container", type("One", (), {"decode": lambda *_: [Decoded(rotation)]})())
    frame = next(iter(source))
    assert frame.size == size and int(frame.pixels[bright].mean()) == 220


class Decoded(Turned):
    pts = 0


def test_a_folder_and_a_pattern_are_videos(tmp_path: Path) -> None:
    for k in range(3):
        save_image(torch.full((3, 20, 30), k / 4), tmp_path / f"frame{k}.png")
    for name in (str(tmp_path), str(tmp_path / "*.png")):
        source = open_source(name, Fraction(10))
        frames = list(source)
        assert source.count == 3 and source.clock == Clock(Fraction(1, 10), Fraction(10))
        assert [int(frame.pixels[0, 0, 0]) for frame in frames] == [0, 64, 128]
    assert len(read(tmp_path / "frame1.png")) == 1


def test_what_is_no_video_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    sentences = {
        "text.mp4": "cannot be opened as a video",
        "empty.mp4": "cannot be opened as a video",
        "nowhere.mp4": "does not exist; give a video file",
        "folder": "has no image files",
    }
    for name, sentence in sentences.items():
        assert sentence in error_of(lambda n=name: open_source(str(tmp_path / n)))
    path = write(tmp_path / "a.mp4", [0])
    assert "leave --fps out" in error_of(lambda: open_source(str(path), Fraction(5)))


def test_sound_alone_and_no_frames_are_one_sentence(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as out:
        stream = out.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 44100
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    assert "has no pictures, only audio" in error_of(lambda: open_source(str(tmp_path / "sound.mp4")))
    whole = write(tmp_path / "a.mp4", list(range(30)))
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[:-400])
    assert "cut.mp4" in error_of(lambda: read(tmp_path / "cut.mp4"))


def test_a_damaged_file_gives_the_frames_before_the_damage(tmp_path: Path) -> None:
    sink = open_sink(tmp_path / "whole.mp4", "labels", PALETTE, Clock(Fraction(1, 30), Fraction(30)))
    for k in range(90):
        noise = np.random.default_rng(k).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
        sink.write(VideoFrame(noise, k, k), torch.randint(0, 5, SIZE, dtype=torch.uint8))
    sink.close()
    data = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "killed.mp4").write_bytes(
        data[: len(data) * 2 // 3]
    )  # as a process that was killed leaves it
    found: list[VideoFrame] = []
    message = error_of(lambda: found.extend(iter(open_source(str(tmp_path / "killed.mp4")))))
    frames = []
    source = iter(open_source(str(tmp_path / "killed.mp4")))
    while True:
        try:
            frames.append(next(source))
        except (StopIteration, ValueError):
            break
    assert 30 <= len(frames) < 90
    assert not message or "is damaged after" in message


@pytest.mark.parametrize("size", [(48, 64), (33, 47), (1, 1), (17, 64)])
@pytest.mark.parametrize("view", ["overlay", "labels"])
def test_videos_of_any_size_are_written(size: tuple[int, int], view: str, tmp_path: Path) -> None:
    sink = open_sink(tmp_path / "out.mp4", view, PALETTE, Clock(Fraction(1, 1000), Fraction(30)))
    labels = torch.randint(0, 5, size, dtype=torch.uint8)
    for k, stamp in enumerate((0, 33, 100, 400)):
        sink.write(VideoFrame(pixels(k, size), stamp, k), labels)
    sink.close()
    frames = read(tmp_path / "out.mp4")
    assert [frame.size for frame in frames] == [(size[0] + size[0] % 2, size[1] + size[1] % 2)] * 4
    assert seconds(tmp_path / "out.mp4") == pytest.approx([0, 0.033, 0.1, 0.4], abs=0.002)


def test_colours_are_those_of_the_labels(tmp_path: Path) -> None:
    sink = open_sink(tmp_path / "out.mp4", "labels", PALETTE, Clock(Fraction(1, 30), Fraction(30)))
    sink.write(VideoFrame(pixels(0), 0, 0), torch.full(SIZE, 3, dtype=torch.uint8))
    sink.close()
    assert np.abs(read(tmp_path / "out.mp4")[0].pixels[20, 20].astype(int) - PALETTE[3]).max() < 12


def test_label_maps_are_exact(tmp_path: Path) -> None:
    sink = open_sink(tmp_path / "maps", "overlay", PALETTE, Clock(Fraction(1, 30), Fraction(30)))
    labels = torch.randint(0, 5, SIZE, dtype=torch.uint8)
    sink.write(VideoFrame(pixels(0), 0, 7), labels)
    sink.close()
    assert torch.equal(read_labels(tmp_path / "maps" / "000007_labels.png"), labels)


def test_outputs_that_cannot_be_are_refused(tmp_path: Path) -> None:
    clock = Clock(Fraction(1, 30), Fraction(30))
    for out, view, sentence in (
        (tmp_path / "a.avi", "overlay", "give a file of that kind, or a folder"),
        (tmp_path / "a.mp4", "plan", "give overlay or labels"),
        (tmp_path / "no" / "a.mp4", "labels", "make the folder"),
    ):
        assert sentence in error_of(lambda o=out, v=view: open_sink(o, v, PALETTE, clock))


@pytest.mark.parametrize("name", ["video_coarse_to_fine", "blockcopy", "coarse_to_fine", "dense"])
def test_any_method_takes_frames_whose_size_changes(name: str) -> None:
    method = make(name, budget=0.6, policy="difference" if name == "blockcopy" else "weighted_entropy")
    frames = [VideoFrame(pixels(k, (64, 96) if k < 3 else (80, 64)), k, k) for k in range(6)]
    found = list(segment_frames(method, frames))
    assert [tuple(result.labels.shape) for result in found] == [frame.size for frame in frames]
    row = found[1].row(Clock(Fraction(1, 25), Fraction(25)))
    assert (row.frame, row.seconds, row.size) == (1, 0.04, (64, 96))


def test_a_still_video_keeps_everything_in_bounded_memory() -> None:
    method = make("video_coarse_to_fine", budget=0.6)
    still = (VideoFrame(pixels(0, (64, 96)), k, k) for k in range(30))
    found = list(segment_frames(method, still))
    assert all(result.work == 0 for result in found[1:])
    rows = [result.row(Clock(Fraction(1), Fraction(1))) for result in found]
    assert {row.memory_bytes for row in rows[1:]} == {rows[0].memory_bytes} and rows[5].kept == 1.0
    assert isinstance(found[-1].memory, VideoMemory)
