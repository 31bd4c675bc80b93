"""Records that are changed and read: what was measured, found and chosen for a model or a machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from targets import LONGEST_SENTENCE, Target, as_json, says_record

from commands import small_model
from foveal.calibration.cost_model import CostModel, Measurement
from foveal.calibration.profile import CalibrationProfile, CurveRow, load_profile
from foveal.calibration.risk import RiskTable
from foveal.calibration.tuned import TUNED, TunedRow, TunedSettings
from foveal.hub.checkpoint import load_model
from foveal.hub.fingerprint import fingerprint
from foveal.inference.large.parts import Packed, pack
from foveal.methods import CoarseToFineConfig, DenseConfig, SegBlocksConfig
from foveal.ops.convolve.autotune import AUTOTUNER
from foveal.storage.store import Store


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


def part(folder: Path) -> Target:
    labels, counts = np.arange(900, dtype=np.uint8).reshape(900, 1) % 11, np.arange(3, dtype=np.int64)
    path = folder / "part"
    path.write_bytes(pack({"labels": labels, "counts": counts}))

    def read() -> tuple[Packed, Any, Any]:
        found = Packed(path)
        return found, found.rows("labels", 100, 800), found.rows("counts")

    def says_all(found: tuple[Packed, Any, Any], _: bytes) -> None:
        assert np.array_equal(found[1], labels[100:800]) and np.array_equal(found[2], counts)

    return Target(path, read, says_all)


KINDS: dict[str, Callable[[Path], Target]] = {
    "profile": profile, "tuned settings": tuned, "cost model": cost_model, "choices": choices,
    "part of a large result": part,
}  # fmt: skip
