"""Mutated files of every kind: read, or refused with a ValueError of one bounded sentence, in little time.

`FUZZ_CASES` is the number of files per kind, `FUZZ_SECONDS` ends every kind early, and seeds begin at
`FUZZ_SEED`.
"""

from __future__ import annotations

import io
import json
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from mutate import mutate
from PIL import Image
from safetensors.torch import save, save_file

import foveal
from commands import small_model
from foreign import UNet
from foveal.data.image import read_image, read_labels
from foveal.geometry.plan import Plan
from foveal.hub.card import Card
from foveal.hub.checkpoint import load_model
from foveal.hub.export import export_program
from foveal.kernels import build
from foveal.program import ProgramInfo, load_program
from foveal.storage.tensors import read_tensors
from foveal.training.config import read_recipe
from foveal.training.log import read_history
from foveal.training.loop import CHECKPOINT, resumed_step
from samples import nano

CASES, SECONDS = int(os.environ.get("FUZZ_CASES", "25")), float(os.environ.get("FUZZ_SECONDS", "inf"))
FIRST = int(os.environ.get("FUZZ_SEED", "0"))
SLOW, MOST_MEMORY = 10.0, 2 << 20
"""Seconds of a case; kilobytes that the process may grow by over all cases of a kind."""
RECIPE = b"""seed = 1
[model]
name = "swiftnet_nano"
[data]
crop = [64, 64]
scale = [0.5, 2.0]
[method]
name = "segblocks"
tile = 32
[train]
steps = 10
batch = 2
learning_rate = 1e-3
"""


def encoded(kind: str) -> bytes:
    values = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    file = io.BytesIO()
    if kind == "npy":
        np.save(file, values)
    elif kind == "tiff":
        tifffile.imwrite(file, values.astype(np.uint16))
    else:
        Image.fromarray(values).save(file, kind)
    return file.getvalue()


def picture(suffix: str, read: Callable[[Path], Any] = read_image) -> Callable[[Path], tuple[Path, Any]]:
    def make(folder: Path) -> tuple[Path, Any]:
        path = folder / f"image.{suffix}"
        path.write_bytes(encoded({"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix)))
        return path, lambda: read(path)

    return make


def mask(folder: Path) -> tuple[Path, Any]:
    path = folder / "labels.png"
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(path)
    return path, lambda: read_labels(path)


def plan(folder: Path) -> tuple[Path, Any]:
    path = folder / "plan.json"
    Plan.uniform(1, (64, 96), 16, 1).save(path)
    return path, lambda: Plan.load(path).tiles


def recipe(folder: Path) -> tuple[Path, Any]:
    path = folder / "recipe.toml"
    path.write_bytes(RECIPE)
    return path, lambda: read_recipe(path)


def card(folder: Path) -> tuple[Path, Any]:
    path = small_model(folder).with_suffix(".json")
    return path, lambda: Card.read(path)


def model(folder: Path) -> tuple[Path, Any]:
    path = small_model(folder)
    return path, lambda: load_model(path)


def saved(folder: Path) -> tuple[Path, Any]:
    foveal.adapt(UNet()).save_pretrained(folder)
    return folder / "config.json", lambda: foveal.AdaptiveModel.from_pretrained(folder, network=UNet())


def tensors(folder: Path) -> tuple[Path, Any]:
    path = folder / "a.safetensors"
    path.write_bytes(save({"a": torch.ones(3, 4), "b": torch.ones(2, dtype=torch.float16)}, {"state": "{}"}))
    return path, lambda: read_tensors(path, "weights")


def checkpoint(folder: Path) -> tuple[Path, Any]:
    path = folder / CHECKPOINT
    save_file({"a": torch.ones(3)}, path, {"state": json.dumps({"step": 3})})
    return path, lambda: resumed_step(folder)


def log(folder: Path) -> tuple[Path, Any]:
    path = folder / "log.jsonl"
    path.write_text("".join(json.dumps({"step": k, "loss": 0.5}) + "\n" for k in range(5)))
    return path, lambda: read_history(folder)


def program(folder: Path) -> tuple[Path, Any]:
    if not build.available():
        pytest.skip("no compiler")
    path = folder / "tiny.foveal"
    export_program(nano(), path, info=ProgramInfo("tiny", tuple("abcde")))
    return path, lambda: load_program(path)


TARGETS = {
    "plan": plan, "recipe": recipe, "card": card, "model": model, "saved model": saved, "tensors": tensors,
    "checkpoint": checkpoint, "log": log, "program": program, "png": picture("png"), "jpeg": picture("jpg"),
    "tiff": picture("tif"), "npy": picture("npy"), "labels": mask,
}  # fmt: skip


@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", TARGETS)
def test_mutated_files(kind: str, tmp_path: Path) -> None:
    path, read = TARGETS[kind](tmp_path)
    read()
    good, refused, done = path.read_bytes(), 0, 0
    before, end = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic() + SECONDS
    for seed in range(FIRST, FIRST + CASES):
        if time.monotonic() > end:
            break
        path.write_bytes(mutate(good, Random(seed)))
        started = time.monotonic()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read()
        except ValueError as error:
            refused += 1
            assert len(str(error)) < 1500, seed
        except Exception as error:
            raise AssertionError(f"{kind}, FUZZ_SEED={seed}: {type(error).__name__}: {error}") from error
        assert time.monotonic() - started < SLOW, f"{kind}, FUZZ_SEED={seed} is slow"
        done += 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MEMORY
    assert refused > 0 or done < 10
    sys.stdout.write(f"{kind}: {done} files, {refused} refused\n")
