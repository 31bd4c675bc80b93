"""Tables that are made from files of figures: as in README.md and docs, and with the rivals that ran."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from foveal.benchmark.runtimes import RUNTIMES

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module


def result(model: str, *ran: tuple[str, str], weights: str = "trained") -> dict[str, Any]:
    rows = [{"runtime": runtime, "precision": precision} for runtime, precision in ran]
    return {"model": model, "weights": weights, "dense": rows}


def test_the_sentence_names_who_ran_and_who_did_not(script: Callable[[str], ModuleType]) -> None:
    text = script("rivals").rivals_text
    one = result("a", ("openvino", "f32"), ("openvino", "int8"), ("torch", "f32"), ("foveal", "f32"))
    assert text([one]) == (
        "Rivals that ran: OpenVINO (f32, int8) and eager PyTorch (f32); ONNX Runtime and torch.compile did "
        "not run. Weights: a trained."
    )
    other = result("b", ("openvino", "bf16"), ("compile", "f32"), weights="random")
    assert text([one, other]) == (
        "Rivals that ran: OpenVINO (f32, int8, bf16); in some rows only: eager PyTorch (f32) and "
        "torch.compile (f32); ONNX Runtime did not run. Weights: a trained and b random."
    )


def test_every_rival_has_a_name(script: Callable[[str], ModuleType]) -> None:
    assert set(script("rivals").NAMES) == set(RUNTIMES) - {"foveal"}


def test_tables_are_those_of_the_files(
    script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ROOT / "README.md", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    tables = script("tables")
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    tables.main()
    pages = ("coarse-to-fine", "dynamic-decoders", "exits-and-cascades", "review")
    for name in ("README.md", *(f"docs/{page}.md" for page in pages)):
        assert (tmp_path / name).read_text() == (ROOT / name).read_text(), "run scripts/tables.py"
    assert "Rivals that ran: " in (ROOT / "README.md").read_text()
