"""Changed files of every kind and geometries at random: right, or refused with one bounded sentence.

`FUZZ_CASES` is the number of cases per kind, `FUZZ_SECONDS` ends every kind early, and seeds begin at
`FUZZ_SEED`. A case that fails, crashes, hangs or takes too much memory is named by its seed, and its file is
kept.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import geometries
import pytest
import readers
import targets
import torch
from isolation import Outcome, run_cases

from foveal.kernels import build

CASES, SECONDS = int(os.environ.get("FUZZ_CASES", "25")), float(os.environ.get("FUZZ_SECONDS", "inf"))
FIRST = int(os.environ.get("FUZZ_SEED", "0"))

pytestmark = [
    pytest.mark.timeout(0),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="a system that does not fork"),
]


def run(name: str, case: Callable[[int], str], folder: Path) -> Outcome:
    outcome = run_cases(case, range(FIRST, FIRST + CASES), time.monotonic() + SECONDS, folder)
    counts = ", ".join(f"{count} {word}" for word, count in sorted(outcome.ended.items()))
    sys.stdout.write(f"{name}: {counts}\n")
    assert not outcome.failed, "\n".join(
        f"{name}, FUZZ_SEED={seed}: {said} (files in {folder})" for seed, said in outcome.failed.items()
    )
    return outcome


@pytest.mark.parametrize("kind", readers.KINDS)
def test_changed_files(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    target = readers.KINDS[kind](place)
    good = target.path.read_bytes()
    target.agrees(target.read(), good)
    ended = run(kind, lambda seed: targets.case(target, good, seed, tmp_path / f"{seed}"), tmp_path).ended
    assert ended["refused"] > 0 or sum(ended.values()) < 10


@pytest.mark.skipif(not build.available(), reason="no compiler")
@pytest.mark.parametrize("kind", geometries.KINDS)
def test_geometries(kind: str, tmp_path: Path) -> None:
    ended = run(kind, lambda seed: geometries.case(kind, seed), tmp_path).ended
    assert ended["right"] > 0 or sum(ended.values()) < 10


@pytest.mark.skipif(not build.available(), reason="no compiler")
@pytest.mark.parametrize("kind", geometries.KINDS)
def test_geometries_import_nothing_in_the_time_of_a_case(kind: str, tmp_path: Path) -> None:
    def case(seed: int) -> str:
        before = set(sys.modules)
        geometries.case(kind, seed)
        assert set(sys.modules) == before, sorted(set(sys.modules) - before)[:9]
        return "right"

    outcome = run_cases(case, range(6), math.inf, tmp_path)
    assert not outcome.failed, outcome.failed


def crash(seed: int) -> str:
    if seed == 2:
        ctypes.string_at(0)
    return "right"


def hang(seed: int) -> str:
    while seed == 2:
        time.sleep(0.01)
    return "right"


def grow(seed: int) -> str:
    if seed == 2:
        torch.empty(5 << 30, dtype=torch.uint8)
    return "right"


@pytest.mark.parametrize(
    ("case", "says"), [(crash, "SIGSEGV"), (hang, "longer than 0.3 s"), (grow, "RuntimeError")]
)
def test_what_ends_a_process_is_one_failed_case(
    case: Callable[[int], str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isolation.SLOW", 0.3)
    outcome = run_cases(case, range(5), math.inf, tmp_path)
    assert outcome.ended["right"] == 4
    assert list(outcome.failed) == [2] and says in outcome.failed[2]
