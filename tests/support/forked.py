"""Processes of their own, for what tests kill, limit or watch, without waiting for imports.

One process imports everything once and forks the others: importing torch takes longer than most commands.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        *("foveal.cli", "foveal.calibration.adapt", "foveal.calibration.latency", "foveal.training.loop"),
        *("foveal.evaluation.evaluate", "foveal.inference.runner", "foveal.training.build"),
    ]
)


@dataclass
class Forked:
    """A process that runs a function.

    Attributes:
        process: The process.
        out: File of what it writes to stdout.
        err: File of what it writes to stderr.
    """

    process: BaseProcess
    out: Path
    err: Path

    @property
    def returncode(self) -> int | None:
        """Its exit code, below 0 if a signal ended it; None while it runs."""
        return self.process.exitcode

    def wait(self, seconds: float | None = None) -> int | None:
        """Wait for its end; return its exit code."""
        self.process.join(seconds)
        return self.process.exitcode

    def kill(self) -> int | None:
        """Kill it, and wait for that."""
        self.process.kill()
        return self.wait()

    @property
    def stdout(self) -> str:
        """What it wrote to stdout."""
        return self.out.read_text()

    @property
    def stderr(self) -> str:
        """What it wrote to stderr."""
        return self.err.read_text()


def start(
    folder: Path,
    function: Callable[..., Any],
    *arguments: Any,
    environment: Mapping[str, str] | None = None,
    threads: int = 1,
) -> Forked:
    """Start a function of a module, with the arguments that it is given, in a process of its own.

    Args:
        folder: Where files of what it writes are made.
        function: What runs; `SystemExit` ends the process with its code.
        arguments: Given to it.
        environment: Variables beside those of this process.
        threads: Threads of PyTorch.
    """
    number = len(list(folder.glob("*.stdout")))
    out, err = folder / f"{number}.stdout", folder / f"{number}.stderr"
    out.touch()
    err.touch()
    given = {**os.environ, **(environment or {})}
    more = (str(out), str(err), given, threads, function, arguments)
    process = CONTEXT.Process(target=_run, args=more)
    process.start()
    return Forked(process, out, err)


def command(*words: object) -> None:
    """Run the command line with some words, as `python -m foveal` does."""
    from foveal.cli import main

    sys.modules["torch.utils.tensorboard"] = None  # type: ignore[assignment] # importing it takes longest
    sys.argv = ["foveal", *map(str, words)]
    main()


def _run(
    out: str,
    err: str,
    environment: Mapping[str, str],
    threads: int,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    """Run a function in the new process, as if it were the first thing that runs there."""
    import torch

    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(threads)
    for path, handle in ((out, 1), (err, 2)):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, handle)
        os.close(file)
    for number, handle in ((1, "stdout"), (2, "stderr")):
        setattr(sys, handle, os.fdopen(os.dup(number), "w", buffering=1))
    function(*arguments)
