"""What every file of figures says of itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
FILES = sorted(path for path in FOLDER.rglob("*.json") if not path.with_suffix(".safetensors").exists())
"""Figures; the JSON beside weights is their card."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_figures_name_their_command_commit_and_machine(path: Path) -> None:
    found = json.loads(path.read_text())
    assert [key for key in ("command", "commit", "machine") if not found.get(key)] == []
