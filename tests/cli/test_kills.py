"""Commands that are killed at random moments: nothing that was there is lost, nothing is half.

`FOVEAL_KILLS` is the number of kills of every command, 3 by default; a third of it for `adapt`.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open

from commands import run, small_workplace
from foveal.calibration.profile import load_profile
from foveal.hub.checkpoint import load_model
from foveal.kernels import build as kernels
from foveal.training.log import read_history

Killed = Callable[[tuple[object, ...], float], tuple[int, float]]
KILLS = int(os.environ.get("FOVEAL_KILLS", "3"))
SIZE = (128, 128)
COMMANDER = """
import json, os, sys
sys.modules["torch.utils.tensorboard"] = None
from foveal.cli import app
import foveal.calibration.adapt, foveal.training.loop, foveal.evaluation.evaluate, foveal.inference.runner
import foveal.calibration.latency, foveal.reporting.pictures, foveal.reporting.profile_chart

for line in sys.stdin:
    words, environment = json.loads(line)
    child = os.fork()
    if not child:
        os.environ.update(environment)
        nothing = os.open(os.devnull, os.O_RDWR)
        for handle in range(3):
            os.dup2(nothing, handle)
        app(words)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""A process that has imported everything forks one for each command: the kill meets the work, and imports,
which take longer than any command, happen once."""
ONE_CANDIDATE = "--coarse-level", 1, "--policy", "weighted_entropy"
"""Settings of `adapt`, which tries four and writes the same for one."""

COMMANDS: dict[str, Callable[[Path], tuple[object, ...]]] = {
    "train": lambda p: ("train", p / "tiny.toml", "--run", p / "run", "--resume"),
    "adapt": lambda p: ("adapt", p / "small.safetensors", "--images", p / "data/images", *ONE_CANDIDATE),
    "calibrate": lambda p: ("calibrate", p / "small.safetensors", "--size", "128x128", "--tile", 32),
    "segment": lambda p: (
        "segment",
        p / "data/images",
        "--model",
        p / "small.safetensors",
        "--out",
        p / "out",
    ),
    "evaluate": lambda p: ("evaluate", p / "tiny11.safetensors", "--data", f"folder:{p / 'data'}"),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if kernels.available():
        monkeypatch.setenv("FOVEAL_KERNELS", str(kernels.build()))  # so that no child builds its own
    monkeypatch.setenv("FOVEAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    small_workplace(tmp_path, steps=12)
    return tmp_path


@pytest.fixture(scope="module")
def commander() -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", COMMANDER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, bufsize=0, **pipes) as process:  # a line is read, and nothing behind it
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def killed_after(commander: subprocess.Popen[bytes]) -> Killed:
    """Run a command and kill it so long after it began; return its exit code and how long it ran."""
    asked, told = commander.stdin, commander.stdout
    assert asked is not None and told is not None

    def run_and_kill(words: tuple[object, ...], seconds: float) -> tuple[int, float]:
        environment = {name: value for name, value in os.environ.items() if name.startswith("FOVEAL")}
        asked.write(json.dumps([list(map(str, words)), environment]).encode() + b"\n")
        child, start = int(told.readline()), time.monotonic()
        if not select.select([told], [], [], seconds)[0]:
            os.kill(child, signal.SIGKILL)
        return int(told.readline()), time.monotonic() - start

    return run_and_kill


def check_whole(place: Path) -> None:
    """Every file whose name is not that of a new one in the making can be read as what it is."""
    for path in place.rglob("*"):
        if not path.is_file() or path.name.startswith(".") or "cache/kernels" in str(path):
            continue
        if path.suffix in (".png", ".jpg"):
            with Image.open(path) as image:
                image.load()
        elif path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                assert file.keys(), path
        elif path.suffix == ".json":
            assert path.read_text().rstrip().endswith("}"), path
    for name in ("small", "tiny11"):
        load_model(place / f"{name}.safetensors")
    if (place / "small.profile.json").exists():
        assert load_profile(load_model(place / "small.safetensors")).images == 3
    if (place / "run").is_dir():
        steps = [row["step"] for row in read_history(place / "run")]
        assert steps == list(range(len(steps)))


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.timeout(120 + 60 * KILLS)
def test_a_command_that_is_killed_at_any_moment_leaves_nothing_half(
    name: str, place: Path, killed_after: Killed
) -> None:
    words, chance = COMMANDS[name](place), random.Random(name)
    code, whole = killed_after(words, 300)  # how long it takes; what it writes is what must not be lost
    assert code == 0
    before = {path: path.stat().st_size for path in place.rglob("*") if is_output(path, place)}
    assert before or name == "evaluate"
    codes: list[int] = []
    wanted = max(1, KILLS // 3) if name == "adapt" else KILLS  # it takes the longest by far
    while len(codes) < wanted or (-signal.SIGKILL not in codes and len(codes) < 4 * KILLS):
        if name == "train":  # it goes on where it was killed, and begins anew when it is done
            _begin_anew_if_done(place)
        if len(codes) >= wanted:  # the machine had more to do at first, and all of them have ended
            whole /= 2
        codes.append(killed_after(words, chance.uniform(0.1, 0.9) * whole)[0])
        check_whole(place)
        assert all(path.exists() for path in before), "what was there is lost"
    assert set(codes) <= {0, -signal.SIGKILL}
    assert -signal.SIGKILL in codes
    assert run(*words).exit_code == 0
    assert not [path for path in place.rglob(".*part*") if "cache/kernels" not in str(path)]
    check_whole(place)


def is_output(path: Path, place: Path) -> bool:
    inputs = ("data", "cache/kernels", "cache/locks", "run/log.jsonl", "run/checkpoint")
    return path.is_file() and not str(path.relative_to(place)).startswith(inputs) and path.name[0] != "."


def _begin_anew_if_done(place: Path) -> None:
    """Leave nothing but the outputs of the last run if that was done."""
    run_folder = place / "run"
    if len(read_history(run_folder)) == 12:
        (run_folder / "checkpoint.safetensors").unlink()
        (run_folder / "log.jsonl").unlink()
