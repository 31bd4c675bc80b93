"""Changed files that commands are given: they end with exit code 0 and a result, or 2 and one sentence.

In the tests' own process, where a traceback is seen as one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pictures
import records
import torch
import trained
from targets import Target

from commands import run, small_model
from foveal.data import synthetic as street
from foveal.data.dataset import default_palette
from foveal.data.image import save_image
from foveal.geometry.plan import Plan
from foveal.hub.card import Card
from foveal.hub.checkpoint import save_model
from samples import nano, write_folder

SEGMENT = "--json", "--quiet", "--no-keep-memory", "--threads", "1", "--always-adapt"


def ordered(path: Path, *words: object) -> Target:
    """Give a command a file that is changed."""

    def read() -> str:
        done = run(*words)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise RuntimeError("the command ended without a sentence") from done.exception
        if done.exit_code == 2:
            sentence = done.stderr.rpartition("foveal: ")[2]
            assert done.stderr.startswith("foveal: ") and sentence and not done.stdout, done.output
            raise ValueError(sentence)
        assert done.exit_code == 0, done.output
        return done.stdout

    def is_json(found: str, data: bytes) -> None:
        for text in found.splitlines() if words[0] == "video" else [found]:
            json.loads(text)

    return Target(path, read, is_json)


def show_plan(folder: Path) -> Target:
    path = folder / "plan.json"
    Plan.uniform(1, (64, 96), 16, 1).save(path)
    return ordered(path, "show", path, "--json")


def show_parts(folder: Path) -> Target:
    path = trained.with_parts(folder)
    return ordered(path.with_suffix(".json"), "show", path, "--json")


def segment_image(folder: Path) -> Target:
    path = folder / "image.jpg"
    path.write_bytes(pictures.encoded("jpg"))
    return ordered(path, "segment", path, "--model", small_model(folder), "--out", folder / "out", *SEGMENT)


def segment_masked(folder: Path) -> Target:
    path, image = pictures.mask(folder).path, folder / "image.png"
    image.write_bytes(pictures.encoded("png"))
    words = ("--model", small_model(folder), "--mask", path, "--out", folder / "out")
    return ordered(path, "segment", image, *words, *SEGMENT)


def segment_risk(folder: Path) -> Target:
    path, image = records.profile(folder).path, folder / "image.png"
    image.write_bytes(pictures.encoded("png"))
    words = ("--method", "coarse_to_fine", "--risk", "0.2", "--out", folder / "out")
    return ordered(path, "segment", image, "--model", folder / "small.safetensors", *words, *SEGMENT)


def evaluate_classes(folder: Path) -> Target:
    data = write_folder(folder / "data", 1, (32, 48))
    path, count = data / "classes.json", len(street.CLASSES)
    palette = [[k, 0, 90] for k in range(count)]
    path.write_text(json.dumps({"classes": list(street.CLASSES), "palette": palette}))
    card = Card("swiftnet_nano", street.CLASSES, default_palette(count))
    model = save_model(nano(count), card, folder / "streets")
    words = (model, "--data", f"folder:{data}", "--budget", "0.5", "--timed", "0")
    return ordered(path, "evaluate", *words, "--json")


def video_memory(folder: Path) -> Target:
    frames = folder / "frames"
    frames.mkdir()
    for k in range(2):
        save_image(torch.rand(3, 64, 96), frames / f"{k}.png")
    path = folder / "memory.safetensors"
    words = (
        "-o",
        folder / "labels",
        "--model",
        small_model(folder),
        "--memory",
        path,
        "--limit",
        "1",
        "--json",
    )
    assert run("video", frames, *words).exit_code == 0
    return ordered(path, "video", frames, *words)


KINDS: dict[str, Callable[[Path], Target]] = {
    "show a plan": show_plan, "show described parts": show_parts, "segment an image": segment_image,
    "segment under a mask": segment_masked, "segment by a risk": segment_risk,
    "evaluate with classes": evaluate_classes, "video with a memory": video_memory,
}  # fmt: skip
