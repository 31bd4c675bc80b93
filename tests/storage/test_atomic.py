"""The one writer: whole or not at all, whatever fails, and never through a link."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from foveal.storage.atomic import replacing, replacing_all, write_atomically
from foveal.storage.lock import hold

KILLED_WRITER = """
import os, signal, sys
from foveal.storage.atomic import replacing

with replacing(sys.argv[1]) as part:
    part.write_bytes(b"half of a fi")
    os.kill(os.getpid(), signal.SIGKILL)
"""
LIMITED = """
import resource, signal, sys
from pathlib import Path
from foveal.storage.atomic import write_atomically

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, -1))
try:
    write_atomically(sys.argv[1], bytes(1 << 21))
except OSError as error:
    print(error)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file.json"
    path.write_text("old")
    return path


def files(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


@pytest.mark.parametrize(("content", "stored"), [("größe\n", "größe\n".encode()), (b"\x00\xff", b"\x00\xff")])
def test_content_replaces_the_old_file_and_leaves_no_other(
    content: str | bytes, stored: bytes, path: Path
) -> None:
    write_atomically(path, content)
    assert path.read_bytes() == stored and files(path) == ["file.json"]


@pytest.mark.parametrize("place", [(os, "fsync"), (Path, "replace"), (os, "ftruncate")])
def test_a_failure_on_the_way_leaves_the_old_file_and_names_it(
    place: tuple[object, str], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*place, full)
    with pytest.raises(OSError, match=r"file\.json cannot be written \(No space left on device\)$") as info:
        write_atomically(path, "new")
    assert info.value.errno == errno.ENOSPC
    assert path.read_text() == "old" and files(path) == ["file.json"]


def test_a_write_that_the_system_cuts_leaves_the_old_file(path: Path) -> None:
    command = [sys.executable, "-c", LIMITED, str(path)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert said.stdout == f"{path} cannot be written (File too large)\n", said.stderr
    assert path.read_text() == "old" and files(path) == ["file.json"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, MemoryError])
def test_whatever_ends_the_writing_leaves_nothing(error: type[BaseException], path: Path) -> None:
    with pytest.raises(error), replacing(path) as part:
        part.write_text("half")
        raise error
    assert path.read_text() == "old" and files(path) == ["file.json"]


def test_files_that_belong_together_are_replaced_only_if_all_are_complete(path: Path) -> None:
    other = path.with_name("other.bin")
    with pytest.raises(KeyboardInterrupt), replacing_all([path, other]) as (first, second):
        first.write_text("new")
        second.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and files(path) == ["file.json"]
    with replacing_all([path, other]) as (first, second):
        first.write_text("new")
        second.write_text("whole")
        assert path.read_text() == "old" and not other.exists()
    assert (path.read_text(), other.read_text()) == ("new", "whole")
    assert files(path) == ["file.json", "other.bin"]


def test_all_reaches_the_disk_before_anything_is_replaced(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    flush, replace = os.fsync, Path.replace
    kinds = {True: "folder", False: "file"}

    def flushed(handle: int) -> None:
        seen.append(f"flush {kinds[stat.S_ISDIR(os.fstat(handle).st_mode)]}")
        flush(handle)

    def replaced(part: Path, target: Path) -> Path:
        seen.append("replace")
        return replace(part, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", replaced)
    with replacing_all([path, path.with_name("other")]):
        pass
    assert seen == ["flush file", "flush file", "replace", "replace", "flush folder"]


def test_a_link_is_replaced_and_not_followed(path: Path, tmp_path: Path) -> None:
    precious = tmp_path / "elsewhere" / "precious"
    precious.parent.mkdir()
    precious.write_text("precious")
    path.unlink()
    path.symlink_to(precious)
    write_atomically(path, "new")
    assert precious.read_text() == "precious"
    assert not path.is_symlink() and path.read_text() == "new"


def test_a_link_in_the_place_of_the_new_file_is_not_followed_either(path: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / ".file.part.json").symlink_to(precious)
    write_atomically(path, "new")
    assert precious.read_text() == "precious"
    assert path.read_text() == "new" and files(path) == ["file.json", "precious"]


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_file_is_not_replaced(make: Callable[[Path], object], path: Path) -> None:
    path.unlink()
    make(path)
    kind = stat.S_IFMT(path.stat().st_mode)
    with pytest.raises(OSError, match=r"cannot be written \(something that is no file is in the way\)"):
        write_atomically(path, "new")
    assert stat.S_IFMT(path.stat().st_mode) == kind and files(path) == ["file.json"]
    path.rename(path.with_name("there"))
    path.symlink_to(path.with_name("there"))  # as /dev/stdout is
    with pytest.raises(OSError, match="no file is in the way"):
        write_atomically(path, "new")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"; make the folder {tmp_path / 'none'} first$"):
        write_atomically(tmp_path / "none" / "file", "new")


def test_permissions_stay_and_new_files_have_the_usual_ones(path: Path) -> None:
    path.chmod(0o600)
    write_atomically(path, "new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = os.umask(0o027)
    try:
        write_atomically(path.with_name("fresh"), "new")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.with_name("fresh").stat().st_mode) == 0o640


def test_what_a_kill_leaves_is_gone_with_the_next_writing(path: Path) -> None:
    for _ in range(2):
        process = subprocess.run([sys.executable, "-c", KILLED_WRITER, str(path)], timeout=120)
        assert process.returncode == -signal.SIGKILL
        assert path.read_text() == "old" and files(path) == [".file.part.json", "file.json"]
    write_atomically(path, "new")
    assert path.read_text() == "new" and files(path) == ["file.json"]


def test_writers_of_one_file_do_not_mix(path: Path) -> None:
    contents = [bytes([k]) * (50_000 + k) for k in range(8)]
    writers = [
        threading.Thread(target=lambda data=data: [write_atomically(path, data) for _ in range(10)])
        for data in contents
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert path.read_bytes() in [b"old", *contents]
    assert path.read_bytes() in contents and files(path) == ["file.json"]


def test_without_locks_files_are_written_all_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(KeyboardInterrupt), replacing(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and files(path) == ["file.json"]
    write_atomically(path, "new")
    assert path.read_text() == "new" and files(path) == ["file.json"]


def test_whoever_waited_for_a_file_that_was_moved_takes_the_one_in_its_place(tmp_path: Path) -> None:
    lock, got = tmp_path / "lock", []
    first = hold(lock, wait=True)
    assert first is not None
    with pytest.raises(BlockingIOError):
        hold(lock, wait=False)
    waiting = threading.Thread(target=lambda: got.append(hold(lock, wait=True)))
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    lock.rename(tmp_path / "moved")
    os.close(first)
    waiting.join(30)
    assert os.path.samestat(os.fstat(got[0]), lock.stat())
    os.close(got[0])
