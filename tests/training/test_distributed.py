from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import share_batches
import torch
from safetensors.torch import load_file

from foveal.data.batches import Batches
from foveal.training.distributed import World
from foveal.training.log import read_history
from foveal.training.loop import CHECKPOINT
from samples import Scenes

HERE = Path(__file__).parent


def start_processes(count: int, folder: Path) -> None:
    """Start what torchrun starts, without the process of torchrun itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(HERE / "share_batches.py"), str(folder)],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * count, "\n".join(errors)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of runs by two processes."""
    folder = tmp_path_factory.mktemp("two")
    start_processes(2, folder)
    return folder


@pytest.mark.parametrize("name", ["dense", "tiles"])
def test_two_processes_give_what_one_gives(name: str, two: Path, tmp_path: Path) -> None:
    """Dense images with pyramid pooling, and mixed resolution; labels and class weights differ by image."""
    share_batches.run(tmp_path, (name,))
    one, other = load_file(tmp_path / name / CHECKPOINT), load_file(two / name / CHECKPOINT)
    assert set(one) == set(other)
    start = share_batches.method_of(name).state_dict()
    for key, value in one.items():
        torch.testing.assert_close(
            other[key], value, rtol=1e-4, atol=1e-6, msg=lambda text, key=key: f"{key}: {text}"
        )
    moved = [key for key in start if not torch.equal(start[key], one[key])]
    assert len(moved) > len(start) / 2
    for mine, theirs in zip(read_history(tmp_path / name), read_history(two / name), strict=True):
        assert theirs == pytest.approx(mine, rel=1e-5)


def test_random_plans_of_two_processes_train_too(two: Path) -> None:
    """Parts have other levels, so the pyramid runs another number of times in each; neither waits forever."""
    rows = read_history(two / "random")
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert rows[-1]["dense"] < rows[0]["dense"]


def test_processes_take_turns_in_a_batch_and_draw_differently() -> None:
    batches = Batches(Scenes(3), share_batches.view, 6, seed=1)
    whole = batches[4]
    parts = [World(rank, 3).share(batches)(4) for rank in range(3)]
    for image, target in zip(*whole, strict=True):
        assert any(
            torch.equal(image, mine) and torch.equal(target, labels)
            for part in parts
            for mine, labels in zip(*part, strict=True)
        )
    assert [len(images) for images, _ in parts] == [2, 2, 2]
    assert torch.equal(parts[1][0], whole[0][1::3])
    assert batches.batch == 6
    assert World().seed(7) == World(0, 3).seed(7) == 7 != World(1, 3).seed(7)


def test_a_batch_that_cannot_be_split_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"train.batch is 3 and there are 2 processes; give .* multiple of 2"
    ):
        World(0, 2).share(Batches(Scenes(3), share_batches.view, 3, seed=1))
