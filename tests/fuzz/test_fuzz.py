"""Changed files of every kind and geometries at random: right, or refused with one bounded sentence.

`FUZZ_CASES` is the number of cases per kind, `FUZZ_SECONDS` ends every kind early, and seeds begin at
`FUZZ_SEED`. A case that fails, crashes, hangs or takes too much memory is named by its seed, and its file is
kept in the folder `FUZZ_KEEP`, else in that of the test. Files of `corpus` are read in every run.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import corpus
import geometries
import pytest
import readers
import targets
import torch
from isolation import Outcome, run_cases

from foveal.kernels import build

CASES, SECONDS = int(os.environ.get("FUZZ_CASES", "25")), float(os.environ.get("FUZZ_SECONDS", "inf"))
FIRST = int(os.environ.get("FUZZ_SEED", "0"))
KEPT = Path(os.environ["FUZZ_KEEP"]) if os.environ.get("FUZZ_KEEP") else None

pytestmark = [
    pytest.mark.timeout(0),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="a system that does not fork"),
]


def nothing(seed: int) -> str:
    return "no file"


def run(name: str, case: Callable[[int], str], folder: Path, keep: Callable[[int], str] = nothing) -> Outcome:
    outcome = run_cases(case, range(FIRST, FIRST + CASES), time.monotonic() + SECONDS, folder)
    counts = ", ".join(f"{count} {word}" for word, count in sorted(outcome.ended.items()))
    sys.stdout.write(f"{name}: {counts}\n")
    assert not outcome.failed, "\n".join(
        f"{name}, FUZZ_SEED={seed}: {said} ({keep(seed)})" for seed, said in outcome.failed.items()
    )
    return outcome


@pytest.mark.parametrize("kind", readers.KINDS)
def test_changed_files(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    target = readers.KINDS[kind](place)
    good = target.path.read_bytes()
    target.agrees(target.read(), good)

    def keep(seed: int) -> str:
        return f"kept as {corpus.keep(KEPT or tmp_path, kind, targets.changed(good, seed))}"

    ended = run(kind, lambda seed: targets.replay(target, targets.changed(good, seed)), tmp_path, keep).ended
    assert ended["refused"] > 0 or sum(ended.values()) < 10


@pytest.mark.parametrize("kind", [kind for kind in readers.KINDS if corpus.kept(kind)])
def test_files_that_showed_a_defect(kind: str, tmp_path: Path) -> None:
    place, files = tmp_path / "place", corpus.kept(kind)
    place.mkdir()
    target = readers.KINDS[kind](place)
    outcome = run_cases(
        lambda k: targets.replay(target, files[k].read_bytes()), range(len(files)), math.inf, tmp_path
    )
    assert not outcome.failed, "\n".join(f"{files[k]}: {said}" for k, said in outcome.failed.items())
    assert sum(outcome.ended.values()) == len(files)


def test_every_kept_file_is_small_and_of_a_kind() -> None:
    names = [corpus.folder_name(kind) for kind in readers.KINDS]
    assert len(set(names)) == len(names)
    assert {folder.name for folder in corpus.FOLDER.iterdir()} <= set(names)
    for kind in readers.KINDS:
        assert all(0 < file.stat().st_size <= corpus.MOST_BYTES for file in corpus.kept(kind))


def test_a_file_that_fails_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(folder: Path) -> targets.Target:
        path = folder / "a"
        path.write_bytes(b"123 456")
        return targets.Target(path, lambda: crash(2) if path.read_bytes() != b"123 456" else "", is_text)

    monkeypatch.setitem(readers.KINDS, "what fails", fails)
    monkeypatch.setattr("test_fuzz.KEPT", tmp_path / "corpus")
    with pytest.raises(AssertionError, match=r"SIGSEGV(.|\n)*kept as .*corpus/what-fails/[0-9a-f]{12}"):
        test_changed_files("what fails", tmp_path)
    files = list((tmp_path / "corpus" / "what-fails").iterdir())
    assert files and all(file.read_bytes() != b"123 456" for file in files)


def is_text(found: object, data: bytes) -> None:
    assert isinstance(found, str)


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


def work(seed: int) -> str:
    while seed == 2:
        pass
    return "right"


def wait(seed: int) -> str:
    while seed == 2:
        time.sleep(0.01)
    return "right"


def grow(seed: int) -> str:
    if seed == 2:
        torch.empty(5 << 30, dtype=torch.uint8)
    return "right"


@pytest.mark.parametrize(
    ("case", "says"),
    [
        (crash, "SIGSEGV"),
        (work, "longer than 0.3 s\n"),
        (wait, "longer than 0.9 s, most of them waiting"),
        (grow, "RuntimeError"),
    ],
)
def test_what_ends_a_process_is_one_failed_case(
    case: Callable[[int], str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isolation.SLOW", 0.3)
    monkeypatch.setattr("isolation.PATIENCE", 3 if case is wait else 999)
    outcome = run_cases(case, range(5), math.inf, tmp_path)
    assert outcome.ended["right"] == 4
    assert list(outcome.failed) == [2] and says in outcome.failed[2]
