"""The training queue: a kill of everything changes nothing in what comes out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from samples import write_folder

ROOT = Path(__file__).parents[2]
STEPS = 12


def queue(home: Path, *words: object) -> str:
    call = [sys.executable, ROOT / "scripts" / "training_queue.py", *map(str, words), "--home", home]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(call, env=environment, capture_output=True, text=True, check=True).stdout


def wait_until(home: Path, name: str, seconds: float = 100) -> None:
    end = time.monotonic() + seconds
    while not (home / "clone" / "runs" / name).exists():
        assert time.monotonic() < end, (home / "worker.log").read_text()
        time.sleep(0.02)


@pytest.mark.slow  # six starts of torch
def test_a_queue_that_is_killed_ends_with_the_same_bytes(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "images", 3, (64, 96))
    recipe, jobs = tmp_path / "tiny.toml", tmp_path / "jobs.toml"
    recipe.write_text(
        f'model.name = "swiftnet_nano"\ndata = {{ train = "folder:{data}", crop = [64, 64] }}\n'
        f"train = {{ steps = {STEPS}, batch = 2, warmup = 1, save_every = 1 }}\n"
    )
    job = f'[[job]]\nname = "%d"\nrecipe = "{recipe}"\nset = ["seed=%d"]\n'
    jobs.write_text(job % (0, 0) + job % (1, 1) + 'start = "0"\n')
    words = (jobs, "--data", tmp_path, "--threads", 1, "--in-place")
    for home in (tmp_path / "calm", tmp_path / "killed"):
        queue(home, *words)
        if home.name == "killed":
            wait_until(home, "0/checkpoint.safetensors")
            os.killpg(int((home / "pid").read_text()), signal.SIGKILL)
            time.sleep(0.2)
            assert "not running" in queue(home, "--status")
            assert not (home / "clone" / "runs" / "0" / "model.json").exists()
            queue(home, *words)
        wait_until(home, "1/model.json")
    card = json.loads((tmp_path / "calm" / "clone" / "runs" / "1" / "model.json").read_text())
    assert card["training"]["recipe"]["model"]["start"] == "runs/0"
    for name in "01":
        calm, killed = (
            (tmp_path / kind / "clone" / "runs" / name / "model.safetensors").read_bytes()
            for kind in ("calm", "killed")
        )
        assert calm == killed
    assert queue(tmp_path / "killed", "--status").count(f"finished of {STEPS}") == 2
    queue(tmp_path / "killed", "--collect", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").glob("*.safetensors")} == {
        "0.safetensors",
        "1.safetensors",
    }


def queue_alone(home: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Call the queue with Python alone: no package is installed."""
    call = [sys.executable, "-S", ROOT / "scripts" / "training_queue.py", *map(str, words), "--home", home]
    return subprocess.run(call, capture_output=True, text=True, check=False)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The folder of a queue with one run that is done."""
    run = tmp_path / "home" / "clone" / "runs" / "a"
    run.mkdir(parents=True)
    (tmp_path / "home" / "jobs.json").write_text('[{"name": "a", "recipe": "a.toml"}]')
    (run / "model.safetensors").write_bytes(b"weights")
    (run / "model.json").write_text("{}")
    (run / "log.jsonl").write_text("".join(f'{{"step": {k}}}\n' for k in range(25)))
    return tmp_path / "home"


def test_runs_are_collected_whole_and_not_through_links(finished: Path, tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.write_text("precious")
    for name in ("a.json", "a.log.jsonl"):
        (out / name).symlink_to(elsewhere)
    done = queue_alone(finished, "--collect", out)
    assert done.returncode == 0, done.stderr
    assert elsewhere.read_text() == "precious"
    assert sorted(path.name for path in out.iterdir()) == ["a.json", "a.log.jsonl", "a.safetensors"]
    assert (out / "a.safetensors").read_bytes() == b"weights" and (out / "a.json").read_text() == "{}"
    assert [json.loads(line)["step"] for line in (out / "a.log.jsonl").open()] == [0, 10, 20]


def test_a_run_of_which_a_file_is_missing_is_not_half_collected(finished: Path, tmp_path: Path) -> None:
    (finished / "clone" / "runs" / "a" / "model.safetensors").unlink()
    assert queue_alone(finished, "--collect", tmp_path / "out").returncode
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.log.jsonl"]


def test_a_planted_log_of_the_worker_is_refused(tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    (home / "worker.log").symlink_to(elsewhere)
    (tmp_path / "jobs.toml").write_text("job = []")
    done = queue_alone(home, tmp_path / "jobs.toml", "--data", tmp_path, "--in-place")
    assert done.returncode == 2 and "worker.log cannot be written" in done.stdout and not done.stderr
    assert not elsewhere.exists() and not (home / "pid").exists()
