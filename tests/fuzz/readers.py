"""Every kind of file that is read, and what must be true of what was read from one that was changed.

Where a changed file is accepted, its content says what must come back:

- JSON and TOML (plan, recipe, card, saved model, profile, tuned settings, cost model, choices, log, a
  checkpoint's header): what `json` and `tomllib` find in the changed file, and nothing else.
- safetensors (tensors, weights of a model) and .npy carry no checksum: changed numbers are other numbers.
  They are read a second time here, by a few lines that know nothing of the reader.
- PNG carries checksums: what is accepted has the pixels of the file that was not changed.
- JPEG and TIFF carry none, and their decoders are the only ones there are: a picture in 0..1 of some size is
  all that can be asked.
- A program is numbers too: one that is accepted runs within its memory, which the process of its own shows,
  and gives labels that are classes, or says that there are none.
"""

from __future__ import annotations

import io
import json
import math
import tomllib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from safetensors.torch import save, save_file
from targets import LONGEST_SENTENCE, Target, as_json, same_as_said, says_json, says_record, says_tensors
from torch import Tensor

import foveal
from commands import small_model
from foreign import UNet
from foveal.calibration.cost_model import CostModel, Measurement
from foveal.calibration.profile import CalibrationProfile, CurveRow, load_profile
from foveal.calibration.risk import RiskTable
from foveal.calibration.tuned import TUNED, TunedRow, TunedSettings
from foveal.data.image import read_image, read_labels
from foveal.geometry.plan import Plan
from foveal.hub.card import Card
from foveal.hub.checkpoint import load_model
from foveal.hub.export import export_program
from foveal.hub.fingerprint import fingerprint
from foveal.kernels import build
from foveal.methods import CoarseToFineConfig, DenseConfig, SegBlocksConfig
from foveal.ops.convolve.autotune import AUTOTUNER
from foveal.program import ProgramInfo, load_program
from foveal.storage.store import Store
from foveal.storage.tensors import read_tensors
from foveal.training.config import read_recipe
from foveal.training.log import read_history
from foveal.training.loop import CHECKPOINT, resumed_step
from samples import nano

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


def is_image(found: Tensor, data: bytes) -> None:
    assert found.ndim == 3 and len(found) == 3 and found.dtype == torch.float32
    assert bool(((found >= 0) & (found <= 1)).all())


def encoded(kind: str) -> bytes:
    values = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    file = io.BytesIO()
    if kind == "npy":
        np.save(file, values)
    elif kind == "tif":
        tifffile.imwrite(file, values.astype(np.uint16))
    else:
        Image.fromarray(values).save(file, {"jpg": "jpeg"}.get(kind, kind))
    return file.getvalue()


def picture(folder: Path, suffix: str, agrees: Callable[[Any, bytes], None] = is_image) -> Target:
    path = folder / f"image.{suffix}"
    path.write_bytes(encoded(suffix))
    return Target(path, lambda: read_image(path), agrees)


def png(folder: Path) -> Target:
    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(encoded("png"))))).permute(2, 0, 1) / 255

    def same_pixels(found: Tensor, data: bytes) -> None:
        assert torch.equal(found, pixels)

    return picture(folder, "png", same_pixels)


def npy(folder: Path) -> Target:
    def says_array(found: Tensor, data: bytes) -> None:
        said = np.load(io.BytesIO(data)).astype(np.float32)
        is_image(found, data)
        if said.shape[-1:] == (3,) and said.shape[:2] == found.shape[1:]:
            largest = 255 if np.load(io.BytesIO(data)).dtype.itemsize == 1 else said.max(initial=1)
            assert np.allclose(found.permute(1, 2, 0) * largest, said, atol=1e-3 * largest) or largest != 255

    return picture(folder, "npy", says_array)


def mask(folder: Path) -> Target:
    path, ids = folder / "labels.png", np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(ids).save(path)

    def same_ids(found: Tensor, data: bytes) -> None:
        assert np.array_equal(found, ids)

    return Target(path, lambda: read_labels(path), same_ids)


def plan(folder: Path) -> Target:
    path = folder / "plan.json"
    Plan.uniform(1, (64, 96), 16, 1).save(path)

    def read() -> dict[str, Any]:
        found = Plan.load(path)
        assert (found.tiles >= 0).all()
        return {"tile": found.tile, "size": list(found.size), "levels": found.levels.tolist()}

    def says_plan(found: dict[str, Any], data: bytes) -> None:
        said = as_json(data)
        same_as_said(found, {key: said[key] for key in found})

    return Target(path, read, says_plan)


def recipe(folder: Path) -> Target:
    path = folder / "recipe.toml"
    path.write_bytes(RECIPE)
    return Target(
        path,
        lambda: read_recipe(path).as_dict(),
        lambda found, data: same_as_said(found, tomllib.loads(data.decode("utf-8"))),
    )


def card(folder: Path) -> Target:
    path = small_model(folder).with_suffix(".json")
    return Target(path, lambda: asdict(Card.read(path)), says_json)


def model(folder: Path) -> Target:
    path = small_model(folder)
    return Target(path, lambda: load_model(path).network.state_dict(), says_tensors)


def saved(folder: Path) -> Target:
    foveal.adapt(UNet()).save_pretrained(folder)

    def read() -> dict[str, Any]:
        made = foveal.AdaptiveModel.from_pretrained(folder, network=UNet())
        return made.spec.as_dict() | {"dtype": as_json((folder / "config.json").read_bytes()).get("dtype")}

    return Target(folder / "config.json", read, says_json)


def tensors(folder: Path) -> Target:
    path = folder / "a.safetensors"
    path.write_bytes(save({"a": torch.ones(3, 4), "b": torch.ones(2, dtype=torch.float16)}, {"state": "{}"}))
    return Target(path, lambda: read_tensors(path, "weights")[0], says_tensors)


def checkpoint(folder: Path) -> Target:
    path = folder / CHECKPOINT
    save_file({"a": torch.ones(3)}, path, {"state": json.dumps({"step": 3})})

    def says_step(found: int, data: bytes) -> None:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        assert found == json.loads(header["__metadata__"]["state"])["step"]

    return Target(path, lambda: resumed_step(folder), says_step)


def log(folder: Path) -> Target:
    path = folder / "log.jsonl"
    path.write_text("".join(json.dumps({"step": k, "loss": 0.5}) + "\n" for k in range(5)))

    def says_lines(found: list[dict[str, float]], data: bytes) -> None:
        lines = [
            line for line in data.decode(errors="replace").splitlines(keepends=True) if line.endswith("\n")
        ]
        assert len(found) == len(lines)
        for row, line in zip(found, lines, strict=True):
            said = json.loads(line)
            assert row.keys() == said.keys()
            assert all(row[k] == said[k] or (math.isnan(row[k]) and math.isnan(said[k])) for k in row)

    return Target(path, lambda: read_history(folder), says_lines)


def profile(folder: Path) -> Target:
    made = load_model(small_model(folder))
    losses = torch.tensor([[0.0, 0.1, 0.2]]).repeat(9, 1)
    table = RiskTable.fit([0.0, 0.2, 0.4], torch.tensor([1.0, 0.7, 0.3]), losses, losses)
    config = CoarseToFineConfig(0.4, "margin", 32, 1, level_gain=(0.4, 1.0))
    row = CurveRow("dense", 1.0, 1.0, 1.0, 0.0, 5.0, 9)
    found = CalibrationProfile(fingerprint(made.network), config, (1.0,) * 5, 9, table, (row,))
    path = found.save(made)

    def read() -> dict[str, Any]:
        profile = load_profile(made)
        return asdict(profile) | {"risk": profile.risk.as_dict()}

    return Target(path, read, says_record)


def tuned(folder: Path) -> Target:
    made = load_model(small_model(folder))
    rows = (
        TunedRow("dense", asdict(DenseConfig(scale=0.5)), "int8", 0.25, 4.0, 0.6),
        TunedRow("coarse_to_fine", asdict(CoarseToFineConfig(0.4, tile=64)), "bf16", 0.41, 9.5, 0.65),
        TunedRow("segblocks", asdict(SegBlocksConfig(0.8, max_level=1)), "f32", 0.8, None, 0.7),
    )
    size = (128, 192)
    path = TunedSettings(fingerprint(made.network), "folder:fields", 9, size, 0.69, rows).save(made)

    def says_rows(found: TunedSettings, data: bytes) -> None:
        says_record(asdict(found), data)
        for chosen in (found.for_budget(0.3), found.for_budget(1.0), found.for_latency(5.0)):
            assert chosen is None or len(found.why(chosen)) < LONGEST_SENTENCE

    return Target(path, lambda: TUNED.load(made), says_rows)


def cost_model(folder: Path) -> Target:
    row = Measurement((512, 512), 30.0, ((0.4, 20.0), (1.0, 33.0)))
    store = Store("cost", 1, folder)
    path = store.write("key", asdict(CostModel(12.0, 2e-4, 3e-3, 5.0, 2.5e-3, 0.02, (row,))))

    def read() -> dict[str, Any]:
        record = store.read("key")
        if record is None:
            raise ValueError("it counts as empty")
        return asdict(CostModel.from_record(record))

    return Target(path, read, says_record)


def choices(folder: Path) -> Target:
    cases = {f"case {k} of 3x3": "direct" if k % 2 else "onednn" for k in range(6)}
    with AUTOTUNER.kept_in(folder):
        path = AUTOTUNER.path
        Store("autotune", 1, folder).write(path.stem, cases)

    def read() -> dict[str, str]:
        with AUTOTUNER.kept_in(folder):
            if not len(AUTOTUNER):
                raise ValueError("it counts as empty")
            said = as_json(path.read_bytes())["record"]
            return {case: found for case in said if (found := AUTOTUNER.get(case)) is not None}

    def says_choices(found: dict[str, str], data: bytes) -> None:
        said = as_json(data)["record"]
        assert found == {c: name for c, name in said.items() if name in AUTOTUNER.candidates}

    return Target(path, read, says_choices)


def program(folder: Path) -> Target:
    if not build.available():
        pytest.skip("no compiler")
    path = folder / "tiny.foveal"
    export_program(nano(), path, info=ProgramInfo("tiny", tuple("abcde")))
    image = np.random.default_rng(0).random((1, 3, 48, 64), np.float32)

    def gives_classes(found: Any, data: bytes) -> None:
        try:
            labels = found.run(image[:, :1].repeat(found.channels, 1), threads=1).labels
        except ValueError as error:
            assert len(str(error)) < LONGEST_SENTENCE
            return
        assert labels.shape == (1, 48, 64) and labels.max() < found.classes

    return Target(path, lambda: load_program(path), gives_classes)


KINDS: dict[str, Callable[[Path], Target]] = {
    "plan": plan, "recipe": recipe, "card": card, "model": model, "saved model": saved, "tensors": tensors,
    "checkpoint": checkpoint, "log": log, "program": program, "png": png, "npy": npy, "labels": mask,
    "jpeg": lambda folder: picture(folder, "jpg"), "tiff": lambda folder: picture(folder, "tif"),
    "profile": profile, "tuned settings": tuned, "cost model": cost_model, "choices": choices,
}  # fmt: skip
