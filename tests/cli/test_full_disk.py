"""A full disk at every write of every command: the old file whole, nothing left, one sentence.

`FOVEAL_FULL_DISKS` is the number of writes of every command that fail, evenly spaced, 4 by default, beside
the first and the last; `-m slow` tries every write of every command.
"""

from __future__ import annotations

import builtins
import errno
import importlib.util
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import foveal
from commands import SMALL_BENCH, Result, run, small_model, small_workplace
from foveal.calibration.export import export_program
from foveal.cli import app
from foveal.data.pairs import default_palette
from foveal.data.synthetic import CLASSES
from foveal.exits import ExitConfig, Exits, Stages
from foveal.geometry.plan import Plan
from foveal.hub.card import Card
from foveal.hub.checkpoint import Model, load_model, save_model
from foveal.inference.large.swap import LOCK, OLD
from samples import nano

ARE_PARTS = ".part"
DISKS = int(os.environ.get("FOVEAL_FULL_DISKS", "4"))


class Disk:
    """Counts what may fail for want of room in the writer (write, flush, fsync, replace), and fails one."""

    def __init__(self, fail_at: int | None) -> None:
        self.fail_at, self.count = fail_at, 0
        self.failed = ""

    def use(self, what: str) -> None:
        if self.count == self.fail_at:
            self.failed = what
        self.count += 1
        if self.failed:  # a disk that is full stays full
            raise OSError(errno.ENOSPC, "No space left on device")


class FullFile:
    """A file open for writing on such a disk."""

    def __init__(self, file: Any, disk: Disk) -> None:
        self.file, self.disk = file, disk

    def write(self, data: Any) -> int:
        self.disk.use("write")
        return int(self.file.write(data))

    def flush(self) -> None:
        self.disk.use("flush")
        self.file.flush()

    def __enter__(self) -> FullFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@contextmanager
def disk(fail_at: int | None = None) -> Iterator[Disk]:
    """Put a disk that is full from the use of a number on below whatever the writer opens."""
    found = Disk(fail_at)
    opened, flushed, replaced = builtins.open, os.fsync, Path.replace

    def open_file(file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
        handle = opened(file, mode, *args, **more)
        ours = isinstance(file, str | Path) and ARE_PARTS in Path(file).name
        return FullFile(handle, found) if ours and set(mode) & set("wax") else handle

    def flush(handle: int) -> None:
        found.use("fsync")
        flushed(handle)

    def replace(part: Path, target: str | Path) -> Path:
        if part.suffix != OLD:  # the name to which a folder is moved back is there still
            found.use("replace")
        return replaced(part, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtins, "open", open_file)
        patch.setattr(io, "open", open_file)
        patch.setattr(os, "fsync", flush)
        patch.setattr(Path, "replace", replace)
        yield found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images, labels and a model; measurements of this machine go below it."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setenv("FOVEAL_CACHE", str(tmp_path / "cache"))
    small_workplace(tmp_path, steps=2)
    return tmp_path


ONE_CANDIDATE = "--coarse-level", 1, "--policy", "weighted_entropy", "--limit", 1
"""Settings of `adapt`, which tries four on every image and writes the same for one."""
COMMANDS: dict[str, Callable[[Path], tuple[object, ...]]] = {
    "segment": lambda p: ("segment", p / "data/images/0.png", "--model", p / "small.safetensors"),
    "large": lambda p: large(p, "labels.png"),
    "large tif": lambda p: large(p, "labels.tif"),
    "large zarr": lambda p: large(p, "labels.zarr"),
    "video": lambda p: (*video(p, "out.mp4"), "--memory", p / "memory.safetensors"),
    "video maps": lambda p: video(p, "maps"),
    "evaluate": lambda p: ("evaluate", *labelled(p), "--timed", 0, "--limit", 2, "--out", p / "labels"),
    "tune": lambda p: (
        *("tune", *labelled(p), "--budgets", 0.5, "--scales", 1, "--first", 1, "--limit", 1, "--timed", 0),
    ),
    "search": lambda p: (
        *("search", p / "exits.safetensors", "--data", f"folder:{p / 'data'}"),
        *("--budgets", 0.5, "--limit", 1, "--timed", 0),
    ),
    "demo": lambda p: ("demo", p / "data/images/0.png", "--model", p / "small.safetensors", "--repeat", 1),
    "adapt": lambda p: ("adapt", p / "small.safetensors", "--images", p / "data/images", *ONE_CANDIDATE),
    "calibrate": lambda p: ("calibrate", p / "small.safetensors", "--size", "128x128", "--tile", 32),
    "export": lambda p: ("export", p / "small.safetensors", p / "small.foveal"),
    "train": lambda p: ("train", p / "tiny.toml", "--run", p / "run"),
    "bench": lambda p: ("bench", "--model", p / "small.safetensors", *SMALL_BENCH, "--picture", p / "a.png"),
    "frontier": lambda p: (
        *("frontier", p / "tiny11.safetensors", "--data", f"folder:{p / 'data'}", "--limit", 1),
        *("--scales", 1, "--budget", 0.6, "--methods", "segblocks", "--timed", 1, "--repeat", 1),
        *("--runtimes", "torch,foveal", "--precision", "f32"),
    ),
}
OUT = {"segment", "demo", "adapt", "frontier"}
NEEDS = {"large tif": "rasterio", "large zarr": "zarr", "video": "av"}
"""Packages that a command writes with, and that may be missing."""
WITHOUT_PICTURE = {"adapt", "tune"}
"""Commands that go on where the picture alone cannot be written, and say so."""
WRITE_NOTHING = {"show", "check", "methods", "models", "policies"}
ELSEWHERE = {
    "reproduce": "studies that take minutes; they write by `replacing` (tests/storage/test_writers.py)"
}


def large(place: Path, out: str) -> tuple[object, ...]:
    words = ("large", place / "data/images/0.png", "-o", place / out, "--model", place / "small.safetensors")
    return (*words, "--window", 64, "--budget", 0.5, "--coarse-level", 1, "--confidence")


def video(place: Path, out: str) -> tuple[object, ...]:
    return "video", place / "data/images", "-o", place / out, "--model", place / "small.safetensors"


def labelled(place: Path) -> tuple[object, ...]:
    return place / "tiny11.safetensors", "--data", f"folder:{place / 'data'}"


def with_exits(place: Path) -> None:
    """Save a model with exits."""
    network = nano(len(CLASSES))
    exits = Exits.of(Stages(network), ExitConfig("", width=16), seed=5)
    card = Card("swiftnet_nano", CLASSES, default_palette(len(CLASSES)))
    save_model(network, card, place / "exits", parts={"exits": exits})


def words(name: str, place: Path) -> tuple[object, ...]:
    return (*COMMANDS[name](place), *(("--out", place / "out") if name in OUT else ()))


def forget(name: str, place: Path) -> None:
    """Delete what a run goes on from, so that the next one begins anew."""
    if name == "train":
        for path in place.glob("run/*"):
            path.unlink()
    for folder in place.glob(".*.windows"):
        shutil.rmtree(folder)


def files(place: Path) -> dict[str, bytes]:
    kept = ("cache/kernels", "cache/locks", "data/")
    found = {str(path.relative_to(place)): path for path in place.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith(kept)}


def check_failure(result: Result, name: str, use: Disk, last: bool) -> None:
    """One sentence and exit code 2. The flush of a folder, at last, costs nothing, nor does a picture."""
    said = f"{name}, {use.failed} {use.fail_at}: {result.stderr}"
    assert isinstance(result.exception, SystemExit | None), said
    assert "Traceback" not in result.stderr, said
    if result.exit_code == 0:
        assert last or (name in WITHOUT_PICTURE and "cannot be written (No space left" in result.stderr), said
        return
    assert result.exit_code == 2, said
    assert result.stderr.strip().splitlines()[-1].startswith("foveal: "), said
    assert "No space left on device" in result.stderr.strip().splitlines()[-1], said


def test_every_command_is_tried() -> None:
    found = {command.name or command.callback.__name__ for command in app.registered_commands}  # type: ignore[union-attr]
    assert found == {name.split()[0] for name in COMMANDS} | WRITE_NOTHING | set(ELSEWHERE)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.timeout(600 + 30 * DISKS)
def test_a_full_disk_loses_nothing_at_some_writes_of_a_command(name: str, place: Path) -> None:
    check_writes(name, place, lambda count: {k * count // DISKS for k in range(DISKS)} | {0, count - 1})


@pytest.mark.slow  # the same, everywhere
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.timeout(3600)
def test_a_full_disk_loses_nothing_at_any_write_of_a_command(name: str, place: Path) -> None:
    check_writes(name, place, lambda count: set(range(count)))


def check_writes(name: str, place: Path, chosen: Callable[[int], set[int]]) -> None:
    """Run a command on disks that are full at chosen writes, of a number of them."""
    if importlib.util.find_spec(NEEDS.get(name, "torch")) is None:
        pytest.skip(f"{NEEDS[name]} is not installed")
    if name == "search":
        with_exits(place)
    for _ in range(2):  # the first run finds what later ones know
        forget(name, place)
        with disk() as uses:
            result = run(*words(name, place))
        assert result.exit_code == 0, result.output
    assert uses.count >= 3, "it writes a file, flushes it and puts it in its place"
    first = files(place)
    again = (*words(name, place), *(("--resume",) if name == "train" else ()))
    for at in sorted(chosen(uses.count)):
        forget(name, place)
        before = files(place) if name == "train" else first
        with disk(at) as full:
            result = run(*again)
        check_failure(result, name, full, at == uses.count - 1)
        after = files(place)
        assert not [found for found in after if ARE_PARTS in found], (name, full.failed, at)
        if name == "train":
            continue
        assert set(before) <= set(after), (name, full.failed, at)
        assert all(after[key] or Path(key).name == LOCK for key in after), "no file is empty"
        for key in before:
            assert whole(place / key), (name, key, full.failed, at)


def whole(path: Path) -> bool:
    """Whether a file can be read as what its name says."""
    from json import loads

    from PIL import Image
    from safetensors import safe_open

    if path.suffix == ".json":
        return bool(loads(path.read_bytes()))
    if path.suffix in (".png", ".jpg"):
        with Image.open(path) as image:
            image.load()
        return True
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            return bool(file.keys())
    if path.suffix == ".tif":
        import rasterio

        with rasterio.open(path) as file:
            return bool(file.read().size)
    if path.suffix == ".mp4":
        import av

        with av.open(str(path)) as file:
            return sum(1 for _ in file.decode(video=0)) == 3
    if path.name in (".zattrs", ".zarray", ".zgroup"):
        return isinstance(loads(path.read_bytes()), dict)
    return True


WRITERS: dict[str, Callable[[Path, Model], object]] = {
    "plan": lambda path, model: Plan(torch.zeros(1, 2, 2, dtype=torch.int8), 16, (32, 32)).save(path),
    "export": lambda path, model: export_program(model, path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_keeps_what_python_saves(name: str, tmp_path: Path) -> None:
    model, path = load_model(small_model(tmp_path)), tmp_path / "file.foveal"
    with disk() as uses:
        WRITERS[name](path, model)
    good = path.read_bytes()
    for at in range(uses.count - 1):  # the last one is the folder, whose failure costs nothing
        with disk(at), pytest.raises(OSError, match=r"file\.foveal cannot be written \(No space left"):
            WRITERS[name](path, model)
        assert path.read_bytes() == good
        assert not list(tmp_path.glob(".*part*"))


def test_an_adaptive_model_keeps_weights_and_config_together(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with disk() as uses:
        foveal.adapt(nano(), source="foveal:create_model").save_pretrained(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for at in range(4):
        with disk(at), pytest.raises(OSError, match="No space left"):
            foveal.adapt(nano(), source="foveal:create_model").save_pretrained(folder)
        after = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert after == before, at
    assert uses.count >= 6
