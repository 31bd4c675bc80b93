"""Records in files: read, changed by several processes at once, and empty where a file is damaged."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from foveal.storage.store import Store

PROCESSES, UPDATES = 6, 25
WRITER = f"""
import sys
from foveal.storage.store import Store

store = Store("kind", 1)
sys.stdin.readline()
for i in range({UPDATES}):
    store.update("shared", {{f"{{sys.argv[1]}}-{{i}}": i}})
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("FOVEAL_CACHE", str(tmp_path / "cache"))
    return Store("kind", 1)


def test_a_record_is_written_updated_and_deleted(store: Store, tmp_path: Path) -> None:
    assert store.read("a") is None and not (tmp_path / "cache").exists()
    assert store.write("a", {"x": 1, "y": [2.5, None]}) == tmp_path / "cache" / "kind" / "a.json"
    assert store.update("a", {"x": 3, "z": "new"}) == store.path("a")
    assert store.read("a") == {"x": 3, "y": [2.5, None], "z": "new"}
    assert store.update("b", {"alone": True}) == store.path("b")
    store.write("a", {"x": 4})
    assert (store.read("a"), store.read("b")) == ({"x": 4}, {"alone": True})
    store.delete("a")
    store.delete("never written")
    assert store.read("a") is None and store.read("b") == {"alone": True}
    assert sorted(file.name for file in store.place.glob("[!.]*")) == ["b.json"]


def test_records_may_lie_elsewhere(store: Store, tmp_path: Path) -> None:
    store.write("a", {"x": 1})
    other = Store("kind", 1, tmp_path / "beside")
    assert other.read("a") is None
    assert other.write("a", {"x": 2}) == tmp_path / "beside" / "a.json"
    assert store.read("a") == {"x": 1}


def test_no_update_of_several_processes_is_lost(store: Store) -> None:
    command = [sys.executable, "-c", WRITER]
    writers = [
        subprocess.Popen([*command, str(i)], stdin=subprocess.PIPE, env=os.environ.copy())
        for i in range(PROCESSES)
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"go\n")
        writer.stdin.close()
    assert [writer.wait(120) for writer in writers] == [0] * PROCESSES
    wanted = {f"{process}-{i}": i for process in range(PROCESSES) for i in range(UPDATES)}
    assert store.read("shared") == wanted


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"\xff\x00", ""),
        (b"[1]", "it holds something else"),
        (b'{"version": 1}', "it holds something else"),
        (b'{"version": 1, "record": [1]}', "it holds something else"),
        (b'{"version": 2, "record": {"x": 1}}', "it is of version 2, not 1"),
        (b'{"record": {"x": 1}}', "it is of version None, not 1"),
    ],
)
def test_a_damaged_file_counts_as_empty(store: Store, content: bytes, problem: str) -> None:
    assert store.problem("a") == ""
    store.write("a", {"x": 1})
    assert store.problem("a") == ""
    store.path("a").write_bytes(content)
    with warned(problem):
        assert store.read("a") is None
    assert store.read("a") is None  # it is said once
    assert store.problem("a") and problem in store.problem("a")
    store.update("a", {"y": 2})
    assert store.read("a") == {"y": 2} and store.problem("a") == ""


def warned(problem: str) -> AbstractContextManager[object]:
    """Another version is no damage."""
    damaged = pytest.warns(RuntimeWarning, match=r"a\.json: no record \(")
    return nullcontext() if "version" in problem else damaged


def test_another_version_does_not_see_older_records(store: Store) -> None:
    store.write("a", {"x": 1})
    newer = Store("kind", 2)
    assert newer.read("a") is None
    newer.write("a", {"x": 2})
    assert store.read("a") is None
    assert json.loads(store.path("a").read_text()) == {"version": 2, "record": {"x": 2}}


def test_a_folder_that_cannot_be_written_is_an_error_of_the_system(store: Store, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    assert store.read("a") is None
    for change in (store.write, store.update):
        with pytest.raises(OSError, match="cache"):
            change("a", {"x": 1})


def test_a_file_system_without_locks_still_keeps_records(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    store.update("a", {"x": 1})
    assert store.read("a") == {"x": 1}
