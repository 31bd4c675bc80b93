"""A folder in the place of an old one: errors and kills between the two moves lose neither."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

import forked
from foveal.inference.large import segment_large
from foveal.inference.large.swap import LOCK, put_in_place, restore
from foveal.storage.lock import hold
from sheets import engine, sheet


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """The folder of a run with a new result, beside an old one of the same name."""
    folder = tmp_path / "out" / ".a.zarr.0123456789abcdef.windows"
    for place, text in ((folder / "whole.zarr", "new"), (tmp_path / "out" / "a.zarr", "old")):
        (place / "0").mkdir(parents=True)
        (place / ".zgroup").write_text("{}")
        (place / "0" / "0.0").write_text(text)
    return folder


@pytest.fixture
def out(run_folder: Path) -> Path:
    return run_folder.parent / "a.zarr"


def said(out: Path) -> str:
    return (out / "0" / "0.0").read_text()


def full_at(monkeypatch: pytest.MonkeyPatch, name: str, at: int) -> None:
    """Let one move of a file, or one flush, fail as on a full disk."""
    count, owner = [0], Path if name == "replace" else os
    system = getattr(owner, name)

    def use(*given: object) -> object:
        count[0] += 1
        if count[0] == at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return system(*given)

    monkeypatch.setattr(owner, name, use)


def test_the_new_one_is_on_the_disk_before_the_old_one_moves(
    run_folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    flush, replace = os.fsync, Path.replace

    def flushed(handle: int) -> None:
        events.append(
            Path(f"/proc/self/fd/{handle}").readlink().name if Path("/proc/self/fd").is_dir() else ""
        )
        flush(handle)

    def replaced(path: Path, target: Path) -> Path:
        events.append("moved")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", replaced)
    put_in_place(run_folder / "whole.zarr", out, run_folder)
    assert said(out) == "new" and [path.name for path in run_folder.iterdir()] == []
    before = events[: events.index("moved")]
    assert len(before) == 4 and events[len(before) :][:2] == ["moved", "moved"]
    if Path("/proc/self/fd").is_dir():
        assert set(before) == {".zgroup", "0.0", "0", "whole.zarr"} and events[-1] == "out"


@pytest.mark.parametrize(("name", "at"), [("replace", 1), ("replace", 2), ("fsync", 1)])
def test_an_error_leaves_the_old_one_in_its_place(
    name: str, at: int, run_folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_at(monkeypatch, name, at)
    with pytest.raises(OSError, match="No space left"):
        put_in_place(run_folder / "whole.zarr", out, run_folder)
    assert said(out) == "old" and [path.name for path in run_folder.iterdir()] == ["whole.zarr"]


def test_where_the_old_one_lies_is_said_if_it_cannot_be_moved_back(
    run_folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves, replace = [0], Path.replace

    def moved(path: Path, target: Path) -> Path:
        moves[0] += 1
        if moves[0] > 1:
            raise OSError(errno.EROFS, "Read-only file system")
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", moved)
        with pytest.raises(
            OSError, match=r"^Read-only .*; the old one lies in .*a\.zarr\.old, and the next run"
        ):
            put_in_place(run_folder / "whole.zarr", out, run_folder)
    restore([run_folder], [out])
    assert said(out) == "old"


def die_between(run_folder: str, out: str) -> None:
    """Be killed between the two moves."""
    moves: list[Path] = []
    system = Path.replace

    def replace(path: Path, target: Path) -> Path:
        if moves:
            os.kill(os.getpid(), signal.SIGKILL)
        moves.append(path)
        return system(path, target)

    Path.replace = replace  # type: ignore[method-assign]
    put_in_place(Path(run_folder, "whole.zarr"), Path(out), Path(run_folder))


@pytest.mark.skipif(os.name == "nt", reason="processes are killed by signals")
def test_what_a_kill_left_is_brought_back_at_the_next_start(
    run_folder: Path, out: Path, tmp_path: Path
) -> None:
    process = forked.start(tmp_path, die_between, str(run_folder), str(out))
    assert process.wait(100) == -signal.SIGKILL
    assert not out.exists() and (run_folder / "a.zarr.old").is_dir()
    handle = hold(run_folder / LOCK, wait=False)
    restore([run_folder], [out])  # somebody else is writing: between the two moves, perhaps
    assert not out.exists()
    assert handle is not None
    os.close(handle)
    restore([run_folder], [out.with_name("b.zarr")])
    assert not out.exists()
    restore([run_folder], [out])
    assert said(out) == "old" and not (run_folder / "a.zarr.old").exists()


def test_what_has_taken_the_place_stays(run_folder: Path, out: Path) -> None:
    out.rename(run_folder / "a.zarr.old")
    (run_folder / "whole.zarr").rename(out)
    restore([run_folder], [out])
    assert said(out) == "new"


def test_a_link_is_replaced_and_not_followed(run_folder: Path, out: Path, tmp_path: Path) -> None:
    out.rename(tmp_path / "elsewhere")
    out.symlink_to(tmp_path / "elsewhere")
    put_in_place(run_folder / "whole.zarr", out, run_folder)
    assert said(out) == "new" and not out.is_symlink() and said(tmp_path / "elsewhere") == "old"


@pytest.mark.parametrize("at", [3, 4])
def test_a_large_image_keeps_the_old_zarr_and_brings_it_back(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moves of labels and of their confidence; then a start of another run finds what a kill left."""
    pytest.importorskip("zarr")
    out, image = tmp_path / "a.zarr", sheet(70, 90)
    for budget in (1.0, 0.9):  # both results are there, and both are replaced
        segment_large(engine(), image, out, budget=budget, window=64, confidence=True)
    old = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert any(path.parent.parent.name == "a_confidence.zarr" for path in old)
    moves, replace = [0], Path.replace

    def moved(path: Path, target: Path) -> Path:
        moves[0] += path.name in ("a.zarr", "a_confidence.zarr", "whole.zarr")
        if moves[0] == at and path.name in ("a.zarr", "whole.zarr"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", moved)
        with pytest.raises(OSError, match=r"a\.zarr cannot be written \(No space left on device\)$"):
            segment_large(engine(), image, out, budget=0.8, window=64, confidence=True)
    assert all(path.read_bytes() == data for path, data in old.items() if "a.zarr" in path.parts)
    folder = next(tmp_path.glob(".a.zarr.*.windows"))
    out.rename(folder / "a.zarr.old")  # as a kill between the two moves leaves it
    with pytest.raises(ValueError, match="budget"):
        segment_large(engine(), image, out, budget=0.01, window=64)
    segment_large(engine(), image, tmp_path / "b.zarr", window=64)
    assert not out.exists(), "a run of another result leaves it alone"

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segment_large(engine(), image, out, budget=0.7, window=64, report=stopped)
    assert all(path.read_bytes() == data for path, data in old.items() if "a.zarr" in path.parts)
    segment_large(engine(), image, out, budget=0.7, window=64, confidence=True)
    assert out.is_dir() and not list(tmp_path.glob(".*"))
