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
EARLY = {
    *(f"coarse_to_fine/{name}.json" for name in ("closer0", "closer1", "closer2")),
    *(f"coarse_to_fine/dense{seed}.json" for seed in range(3)),
    *(f"studies/camvid_{name}.json" for name in ("mobilenetv2", "nano")),
    *(f"trained/{name}_rn18_0.json" for name in ("carrot", "cwfid")),
    "tune/carrot_rn18_0.json",
}
"""Files of quality, none of speed, from before all of it was recorded; no other may leave something out."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_figures_and_cards_name_their_command_commit_machine_threads_and_versions(path: Path) -> None:
    found = json.loads(path.read_text())
    is_card = {"network", "classes", "palette"} <= found.keys()
    assert [key for key in (*ORIGIN, *CONDITIONS * (not is_card)) if not found.get(key)] == []


def test_nothing_new_is_left_unrecorded() -> None:
    vague = {str(path.relative_to(FOLDER)) for path in FILES if "not recorded" in path.read_text()}
    assert vague == EARLY


def test_commands_run_what_is_here() -> None:
    for path in FILES:
        for command in str(json.loads(path.read_text())["command"]).split(" && "):
            program, script, *_ = *command.split(), ""
            assert program in ("foveal", "python", "make"), f"{path.name}: {command}"
            assert program != "python" or (FOLDER.parent / script).is_file(), f"{path.name}: {command}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_commands_are_those_of_a_checkout_and_not_of_one_machine(path: Path) -> None:
    command = str(json.loads(path.read_text()).get("command", ""))
    assert not re.search(r"(?:^|[\s=:'\"])[/~]", command), command
