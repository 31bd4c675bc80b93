"""The folder of a run: one training at a time, one recipe, and a full disk that loses nothing."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

import forked
from commands import refused, run, small_recipe
from foveal.training.log import History, read_history
from foveal.training.loop import CHECKPOINT, resumed_step
from foveal.training.run import alone

STEPS = 4


def hold_folder(folder: Path) -> None:
    """Train in a folder for ever; for another process, which is killed."""
    with alone(folder):
        sys.stdout.write("in\n")
        time.sleep(600)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    return small_recipe(tmp_path, f"steps = {STEPS}, average = 0.5, save_every = 2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# The lock


def test_a_second_training_is_refused_until_the_first_one_ends_however_it_does(
    recipe: Path, folder: Path
) -> None:
    holder = forked.start(recipe.parent, hold_folder, folder)
    try:
        while holder.returncode is None and holder.stdout != "in\n":
            time.sleep(0.01)
        for more in ((), ("--resume",)):
            sentence = refused(run("train", recipe, "--run", folder, *more))
            assert sentence.startswith(f"{folder}: another training runs in this folder")
        assert [path.name for path in folder.iterdir()] == [".lock"]
    finally:
        holder.kill()
    assert run("train", recipe, "--run", folder).exit_code == 0


def test_one_thread_may_enter_twice_and_leaves_no_empty_folder(folder: Path) -> None:
    with alone(folder), alone(folder):
        assert folder.is_dir()
    assert not folder.exists()
    with alone(folder):
        (folder / "log").touch()
    assert (folder / "log").exists()


# Another recipe


@pytest.fixture
def begun(recipe: Path, folder: Path) -> Path:
    assert run("train", recipe, "--run", folder, "--set", "train.steps=2").exit_code == 0
    return folder


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("seed=1", "seed was 0, is 1"),
        ("train.batch=3", "train.batch was 2, is 3"),
        ("model.name=swiftnet_rn18_s16", "model.name was 'swiftnet_nano', is 'swiftnet_rn18_s16'"),
        ("method.name=segblocks", "method.name was 'dense', is 'segblocks'"),
    ],
)
def test_another_recipe_is_refused_before_anything_is_written(
    recipe: Path, begun: Path, setting: str, said: str
) -> None:
    before = contents(begun)
    sentence = refused(run("train", recipe, "--run", begun, "--resume", "--set", setting))
    assert sentence.startswith(f"{begun} is a run of another recipe (")
    assert said in sentence and sentence.endswith("or another --run")
    assert contents(begun) == before


@pytest.mark.parametrize("setting", ["train.learning_rate=1e-5", "train.save_every=1", "train.steps=3"])
def test_length_and_speed_may_change(recipe: Path, begun: Path, setting: str) -> None:
    assert run("train", recipe, "--run", begun, "--resume", "--set", setting).exit_code == 0
    assert resumed_step(begun) == (3 if "steps" in setting else STEPS)


@pytest.mark.parametrize("content", [None, b"", b"[1]", b'{"seed": "x"}', b"\xff"])
def test_a_run_whose_recipe_is_lost_or_damaged_is_not_resumed(
    recipe: Path, begun: Path, content: bytes | None
) -> None:
    (begun / "recipe.json").unlink()
    if content is not None:
        (begun / "recipe.json").write_bytes(content)
    before = contents(begun)
    result = run("train", recipe, "--run", begun, "--resume")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"foveal: {begun / 'recipe.json'}: ")
    assert result.stderr.strip().endswith("without it nothing can be resumed: give another --run")
    assert contents(begun) == before


def test_a_recipe_of_an_older_version_has_the_defaults_of_what_it_lacks(recipe: Path, begun: Path) -> None:
    known = json.loads((begun / "recipe.json").read_text())
    del known["train"]["hardest"]
    (begun / "recipe.json").write_text(json.dumps(known))
    assert run("train", recipe, "--run", begun, "--resume").exit_code == 0


def test_damaged_files_of_a_run_are_named(recipe: Path, begun: Path) -> None:
    log = begun / "log.jsonl"
    log.write_bytes(b"no line\n" + log.read_bytes())
    with pytest.raises(ValueError, match=r"log\.jsonl: no log of a run .*; delete it"):
        read_history(begun)
    (begun / CHECKPOINT).write_bytes(b"no checkpoint")
    sentence = refused(run("train", recipe, "--run", begun, "--resume"))
    assert sentence.startswith(f"{begun / CHECKPOINT}: damaged") and "delete it" in sentence


# The device


def test_a_device_that_is_not_here_is_one_sentence(
    recipe: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    sentence = refused(run("train", recipe, "--run", folder, "--set", "train.device=cuda"))
    assert sentence.startswith("train.device cuda cannot be used (")
    assert refused(run("train", recipe, "--run", folder, "--device", "cuda")).startswith("--device cuda")
    assert not folder.exists()


# A full disk


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_keeps_the_last_good_checkpoint_and_what_it_says_is_true(
    recipe: Path, begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = (begun / CHECKPOINT).read_bytes()
    replace = Path.replace

    def fail(part: Path, target: Path) -> Path:
        return full() if target.name == CHECKPOINT else replace(part, target)  # type: ignore[func-returns-value]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        result = run("train", recipe, "--run", begun, "--resume")
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit)
    assert result.stderr.strip().splitlines()[-1] == (
        f"foveal: {begun / CHECKPOINT} cannot be written (No space left on device); {begun / CHECKPOINT} of "
        "step 2 is kept"
    )
    assert (begun / CHECKPOINT).read_bytes() == good
    assert not list(begun.glob(".*part*"))
    assert run("train", recipe, "--run", begun, "--resume").exit_code == 0


def test_a_log_that_cannot_grow_is_cut_back_to_its_last_line(
    recipe: Path, begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []

    def write(handle: int, line: bytes) -> int:
        """Write half of a line to a disk that is full then."""
        if not line.startswith(b'{"step"') and not written:
            return system(handle, line)
        if written:
            full()
        written.append(line)
        return system(handle, line[: len(line) // 2])

    system = os.write
    monkeypatch.setattr(os, "write", write)
    result = run("train", recipe, "--run", begun, "--resume")
    assert result.exit_code == 2
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(f"foveal: {begun / 'log.jsonl'} cannot be written (No space left on device); ")
    lines = (begun / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1] and written


@pytest.mark.parametrize("dangling", [True, False])
def test_a_log_that_is_a_link_is_refused(dangling: bool, recipe: Path, folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    if not dangling:
        elsewhere.write_text("precious")
    folder.mkdir()
    (folder / "log.jsonl").symlink_to(elsewhere)
    result = run("train", recipe, "--run", folder)
    assert result.exit_code == 2
    last = result.stderr.strip().splitlines()[-1]
    assert f"{folder / 'log.jsonl'} is a symbolic link, which is not followed; delete it" in last
    assert not elsewhere.exists() if dangling else elsewhere.read_text() == "precious"


def test_a_link_that_is_planted_while_a_training_runs_is_not_followed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    folder.mkdir()
    history = History(folder, 0)
    (folder / "log.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"log\.jsonl is a symbolic link"):
        history.add(0, {})
    monkeypatch.setattr(Path, "is_symlink", lambda path: False)  # planted behind the check
    with pytest.raises(OSError, match=r"log\.jsonl cannot be written"):
        history.add(0, {})
    assert not (tmp_path / "elsewhere").exists()


def train_on_a_small_disk(recipe: Path, folder: Path) -> None:
    """Train where no file may grow beyond a size."""
    import resource  # there is none on Windows

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, -1))
    forked.command("train", recipe, "--run", folder, "--threads", 1)


def test_a_whole_training_on_a_disk_that_is_full_has_no_traceback(recipe: Path, folder: Path) -> None:
    """The system itself refuses: files may not grow beyond what a log takes."""
    result = forked.start(recipe.parent, train_on_a_small_disk, recipe, folder)
    assert result.wait(300) == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.strip().splitlines()[-1] == (
        f"foveal: {folder / CHECKPOINT} cannot be written (File too large); no checkpoint was written before"
    )
    assert not (folder / CHECKPOINT).exists() and not list(folder.glob(".*part*"))
