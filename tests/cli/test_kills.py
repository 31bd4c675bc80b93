"""Commands that are killed at random moments: nothing that was there is lost, nothing is half.

`FOVEAL_KILLS` is the number of kills of every command, 3 by default; a third of it for `adapt`.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open

from commands import run, small_workplace
from foveal.calibration.profile import load_profile
from foveal.hub.checkpoint import load_model
from foveal.kernels import build as kernels
from foveal.training.log import read_history

KILLS = int(os.environ.get("FOVEAL_KILLS", "3"))
SIZE = (128, 128)
CHILD = """
import sys
sys.modules["torch.utils.tensorboard"] = None
from foveal.cli import app
import foveal.calibration.adapt, foveal.training.loop, foveal.evaluation.evaluate, foveal.inference.runner
import foveal.calibration.latency, foveal.reporting.pictures, foveal.reporting.profile_chart

sys.stdin.readline()  # everything is imported: the kill meets the work
app()
"""

COMMANDS: dict[str, Callable[[Path], tuple[object, ...]]] = {
    "train": lambda p: ("train", p / "tiny.toml", "--run", p / "run", "--resume"),
    "adapt": lambda p: ("adapt", p / "small.safetensors", "--images", p / "data/images", "--limit", 3),
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


def killed_after(words: tuple[object, ...], seconds: float) -> tuple[int, float]:
    """Run a command and kill it so long after it began to work; return its exit code and how long it ran."""
    command = [sys.executable, "-c", CHILD, *map(str, words)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert process.stdin is not None
    process.stdin.write(b"go\n")
    process.stdin.flush()
    start = time.monotonic()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
    return process.wait(), time.monotonic() - start


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
def test_a_command_that_is_killed_at_any_moment_leaves_nothing_half(name: str, place: Path) -> None:
    words, chance = COMMANDS[name](place), random.Random(name)
    code, whole = killed_after(words, 300)  # how long it takes; what it writes is what must not be lost
    assert code == 0
    before = {path: path.stat().st_size for path in place.rglob("*") if is_output(path, place)}
    assert before or name == "evaluate"
    codes = []
    for _ in range(max(1, KILLS // 3) if name == "adapt" else KILLS):  # it takes the longest by far
        if name == "train":  # it goes on where it was killed, and begins anew when it is done
            codes.append(_kill_a_training(words, place, chance.uniform(0.1, 0.9) * whole))
        else:
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


def _kill_a_training(words: tuple[object, ...], place: Path, seconds: float) -> int:
    """Start again from nothing but the outputs of the last run if that was done."""
    run_folder = place / "run"
    if len(read_history(run_folder)) == 12:
        (run_folder / "checkpoint.safetensors").unlink()
        (run_folder / "log.jsonl").unlink()
    return killed_after(words, seconds)[0]
