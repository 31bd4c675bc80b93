from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from foveal.benchmark.machine import PACKAGE, describe_machine, find_commit, quiet_machine

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc")
Start = Callable[..., subprocess.Popen[bytes]]


def state(process: subprocess.Popen[bytes]) -> str:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def reaches(process: subprocess.Popen[bytes], states: str) -> bool:
    for _ in range(200):
        if state(process) in states:
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a process that sleeps and leads a group of its own, and note it as the queue's worker."""
    script = tmp_path / "training_queue.py"
    script.write_text("import time\ntime.sleep(60)\n")
    (tmp_path / "other.py").write_text(script.read_text())
    started = []

    def begin(name: str = "training_queue.py", *words: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, tmp_path / name, *words], start_new_session=True)
        started.append(process)
        (tmp_path / "pid").write_text(str(process.pid))
        assert reaches(process, "S")
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


def test_a_queue_is_paused_and_goes_on(start: Start, tmp_path: Path) -> None:
    worker = start("training_queue.py", "--work")
    with quiet_machine(tmp_path) as paused:
        assert paused
        assert reaches(worker, "T")
    assert reaches(worker, "RS")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_queue_goes_on_after_an_error(error: type, start: Start, tmp_path: Path) -> None:
    worker = start("training_queue.py", "--work")
    with pytest.raises(error), quiet_machine(tmp_path):
        assert reaches(worker, "T")
        raise error
    assert reaches(worker, "RS")


def test_a_queue_goes_on_when_the_measuring_process_is_ended(start: Start, tmp_path: Path) -> None:
    worker = start("training_queue.py", "--work")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit), quiet_machine(tmp_path):
        assert reaches(worker, "T")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert reaches(worker, "RS")
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(("name", "words"), [("other.py", ("--work",)), ("training_queue.py", ())])
def test_another_process_of_that_number_is_left_alone(
    name: str, words: tuple[str, ...], start: Start, tmp_path: Path
) -> None:
    worker = start(name, *words)
    with quiet_machine(tmp_path) as paused:
        assert not paused
        assert state(worker) in "RS"


def test_a_queue_that_somebody_paused_stays_paused(start: Start, tmp_path: Path) -> None:
    worker = start("training_queue.py", "--work")
    worker.send_signal(signal.SIGSTOP)
    assert reaches(worker, "T")
    with quiet_machine(tmp_path) as paused:
        assert not paused
    assert state(worker) == "T"


@pytest.mark.parametrize("content", [None, "", "no number", "999999999"])
def test_no_queue_is_no_error(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "pid").write_text(content)
    with quiet_machine(tmp_path) as paused:
        assert not paused


def test_a_machine_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/foveal", "bench", "--image", "my photo.png"])
    found = describe_machine(["numpy", "no_such_package"])
    assert set(found.versions) == {"foveal", "numpy"}
    assert found.command == "foveal bench --image 'my photo.png'"
    assert found.machine and found.cores >= 1 and found.threads >= 1


def test_the_commit_is_that_of_the_package(tmp_path: Path) -> None:
    assert find_commit(tmp_path) is None
    inside = find_commit(PACKAGE)
    assert inside is None or len(inside.removesuffix("-dirty")) >= 7
    assert find_commit(PACKAGE / "models") is None
