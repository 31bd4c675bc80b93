"""What every file of figures says of itself."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
FILES = sorted(FOLDER.rglob("*.json"))
"""Figures, and the cards of weights."""


ORIGIN = "command", "commit", "machine"
CONDITIONS = "threads", "versions"
"""What figures depend on besides; cards say what is known of weights, whose form is that of `hub/card.py`."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_figures_and_cards_name_their_command_commit_machine_threads_and_versions(path: Path) -> None:
    found = json.loads(path.read_text())
    is_card = {"network", "classes", "palette"} <= found.keys()
    assert [key for key in (*ORIGIN, *CONDITIONS * (not is_card)) if not found.get(key)] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_commands_are_those_of_a_checkout_and_not_of_one_machine(path: Path) -> None:
    command = str(json.loads(path.read_text()).get("command", ""))
    assert not re.search(r"(?:^|[\s=:'\"])[/~]", command), command
