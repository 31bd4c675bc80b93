"""`foveal video` and `foveal evaluate --video`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from commands import lines_of, parsed, refused, run, small_model
from foveal.data.image import save_image
from foveal.tiles.video import VideoMemory
from samples import write_folder

LINE = {"frame", "seconds", "size", "work", "ms", "kept", "levels", "memory_bytes", "dropped"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_model(tmp_path)


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Write five images: a square that moves over a still ground."""
    folder = tmp_path / "frames"
    folder.mkdir()
    ground = torch.rand(3, 96, 160)
    for k in range(5):
        image = ground.clone()
        image[:, 20:40, 10 + 20 * k : 30 + 20 * k] = 1.0
        save_image(image, folder / f"{k}.png")
    return folder


def test_every_frame_is_a_line_and_the_first_is_seen_in_full(
    model: Path, frames: Path, tmp_path: Path
) -> None:
    out = tmp_path / "maps"
    result = run("video", frames, "-o", out, "--model", model, "--budget", 0.4, "--fps", 10, "--json")
    assert result.exit_code == 0, result.output
    rows = lines_of(result.stdout)
    assert [row["frame"] for row in rows] == list(range(5)) and set(rows[0]) == LINE
    assert rows[0]["work"] == 1.0 and max(row["work"] for row in rows[1:]) < 0.5
    assert [row["seconds"] for row in rows] == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert len(list(out.glob("*_labels.png"))) == 5
    assert "5 frames, work" in result.stderr


def test_the_text_says_what_it_took(model: Path, frames: Path, tmp_path: Path) -> None:
    call = ("video", frames, "-o", tmp_path / "maps", "--model", model, "--limit", 2)
    assert run(*call).stdout.startswith("2 frames, work ")
    assert run(*call, "--quiet").stdout == ""


def test_frames_run_in_other_precisions(model: Path, frames: Path, tmp_path: Path) -> None:
    sizes = {}
    for precision in ("f32", "bf16"):
        call = (
            "video",
            frames,
            "-o",
            tmp_path / precision,
            "--model",
            model,
            "--precision",
            precision,
            "--json",
        )
        rows = lines_of(run(*call).stdout)
        assert len(rows) == 5
        sizes[precision] = rows[-1]["memory_bytes"]
    assert sizes["bf16"] < sizes["f32"], "maps stay in their own number format"
    unknown = ("video", frames, "-o", tmp_path / "x", "--model", model, "--precision", "int8")
    assert "foveal adapt" in refused(run(*unknown))


def test_what_is_known_goes_on_from_a_file(model: Path, frames: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.safetensors"
    call = (
        "video",
        frames,
        "-o",
        tmp_path / "maps",
        "--model",
        model,
        "--memory",
        kept,
        "--json",
        "--limit",
        1,
    )
    assert lines_of(run(*call).stdout)[0]["work"] == 1.0
    assert VideoMemory.load(kept).size == (96, 160)
    assert lines_of(run(*call).stdout)[0]["work"] == 0.0
    assert "is written by --method" in refused(run(*call, "--method", "dense"))


def test_what_cannot_be_done_is_one_sentence(model: Path, frames: Path, tmp_path: Path) -> None:
    out = tmp_path / "maps"
    for words, sentence in (
        ((tmp_path / "nowhere.mp4", "-o", out), "does not exist"),
        ((frames, "-o", tmp_path / "a.avi"), "give a file of that kind"),
        ((frames, "-o", out, "--view", "plan"), "give overlay or labels"),
        ((frames, "-o", out, "--method", "nothing"), "no method named"),
        ((frames, "-o", out, "--budget", 0.01, "--first-budget", 0.01), "raise the budget"),
        ((frames, "-o", out, "--fps", "nan"), "fps"),
    ):
        assert sentence in refused(run("video", *words, "--model", model, "--quiet"))


def test_a_mean_over_the_frames_and_a_time_are_kept(model: Path, frames: Path, tmp_path: Path) -> None:
    call = ("video", frames, "-o", tmp_path / "maps", "--model", model, "--fps", 10)
    rows = lines_of(run(*call, "--long-run", 0.3, "--budget", 0.5, "--json").stdout)
    works = [row["work"] for row in rows]
    assert works[0] == 1.0 and all(work <= 0.15 + 32 * 32 / (96 * 160) for work in works[1:4])
    result = run(*call, "--latency", 2000)
    assert "95 % within" in result.stdout and "(limit 2000)" in result.stdout
    rows = lines_of(run(*call, "--latency", 2000, "--json").stdout)
    assert rows[0]["work"] <= 0.25 + 32 * 32 / (96 * 160)  # nothing is known of its time
    slow = lines_of(run(*call, "--latency", 0.001, "--method", "coarse_to_fine", "--json").stdout)
    assert len(slow) == 5 and slow[-1]["work"] < 0.3


def test_limits_that_are_none_are_one_sentence(model: Path, frames: Path, tmp_path: Path) -> None:
    for words, sentence in (
        (("--long-run", 0.3, "--budget", 0.2), "at most 0.2, the most of a frame"),
        (("--long-run", 0), "above 0"),
        (("--long-run", "nan"), "--long-run is nan"),
        (("--long-run", 0.2, "--method", "coarse_to_fine"), "--long-run is kept by --method"),
        (("--latency", 0), "give milliseconds above 0"),
        (("--latency", "inf"), "give milliseconds above 0"),
        (("--latency", 10, "--method", "dense"), "can spend less"),
        (("--latency", 10, "--budget", 2), "budget is 2"),
    ):
        call = ("video", frames, "-o", tmp_path / "maps", "--model", model, "--quiet", *words)
        assert sentence in refused(run(*call))


def test_frames_that_come_too_fast_are_dropped_where_it_is_asked_for(
    model: Path, frames: Path, tmp_path: Path
) -> None:
    call = ("video", frames, "-o", tmp_path / "maps", "--model", model, "--fps", 1000)
    result = run(*call, "--live", "--json")
    rows = lines_of(result.stdout)
    dropped = sum(row["dropped"] for row in rows)
    assert rows[-1]["frame"] == 4 and len(rows) + dropped == 5
    assert (f"{dropped} frames dropped" in result.stderr) is bool(dropped)
    assert [row["dropped"] for row in lines_of(run(*call, "--json").stdout)] == [0] * 5


def test_a_video_over_itself_is_refused(model: Path, frames: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    path = tmp_path / "a.mp4"
    call = ("video", "--model", model, "--quiet")
    assert run(*call, frames, "-o", path).exit_code == 0
    size = path.stat().st_size
    assert "is the video itself" in refused(run(*call, path, "-o", path))
    assert path.stat().st_size == size


def test_ctrl_c_leaves_a_file_that_can_be_played(model: Path, tmp_path: Path) -> None:
    av: Any = pytest.importorskip("av")
    folder, out = tmp_path / "many", tmp_path / "out.mp4"
    folder.mkdir()
    for k in range(400):
        save_image(torch.full((3, 64, 96), (k % 40) / 40), folder / f"{k:03d}.png")
    words = [
        sys.executable,
        "-m",
        "foveal",
        "video",
        str(folder),
        "-o",
        str(out),
        "--model",
        str(model),
        "--json",
    ]
    # Who runs tests in the background may ignore the signal, and its children would too.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(words, **pipes, env=os.environ, preexec_fn=heard)
    assert process.stdout is not None
    for _ in range(8):
        process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert b"interrupted" in said
    with av.open(str(out)) as file:
        played = sum(1 for _ in file.decode(video=0))
    assert played == 8 + len(rest.splitlines())


def test_a_clip_is_evaluated_with_flicker_and_controls(tmp_path: Path) -> None:
    from foveal.data.pairs import default_palette
    from foveal.data.synthetic import CLASSES
    from foveal.hub.card import Card
    from foveal.hub.checkpoint import save_model
    from samples import nano

    data = write_folder(tmp_path / "data", 3, (64, 96))
    card = Card("swiftnet_nano", CLASSES, default_palette(len(CLASSES)))
    model = save_model(nano(len(CLASSES)), card, tmp_path / "streets")
    call = ("evaluate", model, "--data", f"folder:{data}", "--timed", 0)
    asked = ("--method", "video_coarse_to_fine", "--budget", 0.5)
    rows = parsed(run(*call, *asked, "--video", "clip", "--baseline", "--json"))
    names = "dense video_coarse_to_fine blockcopy blockcopy coarse_to_fine static key_frames key_frames"
    assert [row["method"] for row in rows] == names.split()
    assert abs(rows[5]["work"] - 0.5) < 0.01 and rows[5]["policy"] == "reduced to 0.71"
    for row in rows:
        assert row["images"] == 3 and 0 <= row["flicker"] <= 1 and row["memory_bytes"] >= 0
    text = run(*call, *asked, "--video", "clip").stdout
    assert "flickers" in text and "3 frames" in text
    still = parsed(run(*call, *asked, "--video", "static", "--limit", 4, "--json"))
    assert [row["images"] for row in still] == [4, 4]
    turning = parsed(run(*call, *asked, "--video", "pan", "--limit", 4, "--json"))
    assert [row["images"] for row in turning] == [4, 4]
    assert "give clip, static or pan" in refused(run(*call, *asked, "--video", "film"))
    assert "leave it out with --video" in refused(
        run(*call, *asked, "--video", "clip", "--out", tmp_path / "o")
    )


def test_a_mask_holds_the_rest_still(model: Path, frames: Path, tmp_path: Path) -> None:
    wanted = torch.zeros(3, 96, 160)
    wanted[:, 50:] = 1.0  # the square moves above
    save_image(wanted, tmp_path / "where.png")
    call = ("video", frames, "--model", model, "--json")
    masked = run(*call, "-o", tmp_path / "still", "--mask", tmp_path / "where.png", "--mask-share", 0.5)
    assert masked.exit_code == 0, masked.output
    assert [row["work"] for row in lines_of(masked.stdout)] == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert all(row["work"] > 0 for row in lines_of(run(*call, "-o", tmp_path / "all").stdout))
    for k in range(5):
        labels = torch.from_numpy(np.array(Image.open(tmp_path / "still" / f"{k:06d}_labels.png")))
        assert bool((labels[:64] == 255).all()) and bool((labels[64:] != 255).all())

    alone = run(
        *call, "-o", tmp_path / "each", "--mask", tmp_path / "where.png", "--method", "coarse_to_fine"
    )
    assert all(0 < row["work"] < 0.55 for row in lines_of(alone.stdout))
    dense = run(*call, "-o", tmp_path / "dense", "--mask", tmp_path / "where.png", "--method", "dense")
    assert "method dense takes no mask; the network runs on tiles at full resolution instead" in dense.stderr
    assert all(0 < row["work"] < 0.8 for row in lines_of(dense.stdout))
    save_image(wanted[:, :50], tmp_path / "small.png")
    said = refused(run(*call, "-o", tmp_path / "no", "--mask", tmp_path / "small.png"))
    assert "wants no pixel" in said
    save_image(wanted[:, 10:], tmp_path / "small.png")
    said = refused(run(*call, "-o", tmp_path / "no", "--mask", tmp_path / "small.png"))
    assert "the mask has 160 x 86 px and the frame 160 x 96; give equal sizes" in said
