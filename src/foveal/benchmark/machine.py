"""Description of the machine that figures were measured on, and a pause of background work meanwhile."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType

import torch

from foveal import __version__
from foveal.kernels.processor import instruction_sets, processor
from foveal.storage.cache import home_folder

PACKAGE = Path(__file__).resolve().parent.parent
PROCESSES = Path("/proc")
HOME = home_folder()
QUEUE = HOME / "queue" if HOME else None
"""Folder of the training queue; its file `pid` names the worker, which leads a process group of its own. None
without a home."""
ENDINGS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where, with what and by which command figures were measured.

    Attributes:
        machine: Name of the processor.
        instruction_sets: Those that matter for networks.
        cores: Of the processor.
        threads: That PyTorch uses.
        torch: Version of PyTorch.
        versions: Of this package and of the others that took part.
        commit: Of the checkout, marked if files differ from it; None for an installed package.
        command: What was typed.
    """

    machine: str
    instruction_sets: tuple[str, ...]
    cores: int
    threads: int
    torch: str
    versions: dict[str, str]
    commit: str | None
    command: str


def describe_machine(packages: Iterable[str] = ()) -> Machine:
    """Describe this machine, process and checkout.

    Args:
        packages: Distributions whose versions matter; those that are not installed are left out.
    """
    versions = {"foveal": __version__}
    for package in sorted(set(packages)):
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return Machine(
        machine=processor(),
        instruction_sets=instruction_sets(),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        versions=versions,
        commit=find_commit(PACKAGE),
        command=shlex.join([_program(), *sys.argv[1:]]),
    )


def _program() -> str:
    """Name what was started: python -m foveal is foveal."""
    name = Path(sys.argv[0]).name
    return "foveal" if name == "__main__.py" else name


def find_commit(package: Path) -> str | None:
    """Return the commit of the checkout whose `src` holds a package, with "-dirty" if files differ from it.

    None without git, or where the package lies anywhere else, such as in somebody's environment.
    """
    if _git(package, "rev-parse", "--show-prefix") != f"src/{package.name}/":
        return None
    return _git(package, "describe", "--always", "--dirty", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


@contextmanager
def quiet_machine(home: Path | None = None) -> Iterator[bool]:
    """Pause the training queue while something is timed, and let it go on after that, whatever happens.

    Args:
        home: Folder of the queue; `QUEUE` if absent.

    Yields:
        Whether a queue was paused. One that somebody else has paused stays paused.
    """
    place = QUEUE if home is None else home
    group = None if place is None else _running_queue(place)
    if group is None:
        yield False
        return
    with _ended_by_exception():
        try:
            os.killpg(group, signal.SIGSTOP)
            yield True
        finally:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGCONT)


def _running_queue(home: Path) -> int | None:
    """Return the process group of a queue that runs now; None if what has the number is something else."""
    try:
        worker = int((home / "pid").read_text())
        words = (PROCESSES / str(worker) / "cmdline").read_text().split("\0")
        state = (PROCESSES / str(worker) / "stat").read_text().rpartition(")")[2].split()[0]
        leads = os.getpgid(worker) == worker != os.getpgrp()
    except (OSError, ValueError, IndexError):
        return None
    ours = "--work" in words and any(word.endswith("queue.py") for word in words)
    return worker if ours and leads and state not in "TtZX" else None


@contextmanager
def _ended_by_exception() -> Iterator[None]:
    """Turn signals that end the process at once into an exception, so that `finally` is reached."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, end) for number in ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
