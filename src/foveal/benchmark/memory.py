"""Peak memory of one run, in a process of its own: in an old process nobody knows whose memory it is."""

from __future__ import annotations

import ctypes
import gc
import pickle
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from foveal.cost import keep_memory
from foveal.kernels.workspace import WORKSPACE

CHILD = "from foveal.benchmark.memory import child; child()"
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")

Make = Callable[..., Callable[[], Any]]


def peak_mb(make: Make, *arguments: Any, keep: bool = True) -> float:
    """Measure by how much a run raises the peak of resident memory [MB], after one that lays out weights.

    Args:
        make: Function of a module; what it returns is run twice. What it uses itself does not count.
        *arguments: Given to it; they and it are pickled.
        keep: Whether the allocator keeps freed memory, as after `foveal.cost.keep_memory`.

    Raises:
        ValueError: The process ended early, or the system does not say how much memory it used.
    """
    job = pickle.dumps((make, arguments, torch.get_num_threads(), keep))
    done = subprocess.run([sys.executable, "-c", CHILD], input=job, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise ValueError(
            f"memory cannot be measured: the process ended with {done.returncode} ({said or 'no word'}); "
            "leave --memory out, or take a smaller image"
        )
    return float(done.stdout)


def child() -> None:
    """Do what `peak_mb` wrote to stdin, and write the result [MB] to stdout."""
    make, arguments, threads, keep = pickle.loads(sys.stdin.buffer.read())
    torch.set_num_threads(threads)
    run = make(*arguments)
    if keep:
        keep_memory()
    with torch.inference_mode():
        run()  # weights are laid out in the first run: they belong to the model, for every runtime
        WORKSPACE.clear()
        _give_back()
        with suppress(OSError):
            RESET.write_text("5")  # the peak so far is forgotten
        before = _resident()
        run()
    sys.stdout.write(f"{(_peak() - before) / 1e6:.2f}")


def _give_back() -> None:
    """Return what is free to the system, where glibc can: what the run takes is then seen to be taken."""
    gc.collect()
    with suppress(OSError, AttributeError, TypeError):  # TypeError: no such library on Windows
        ctypes.CDLL(None).malloc_trim(0)


def _peak() -> int:
    """Largest resident memory of this process so far [B]."""
    if STATUS.is_file():
        return _status("VmHWM")  # on Linux `ru_maxrss` begins with what the parent had
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _resident() -> int:
    """Resident memory of this process now [B]; its peak where the system does not say."""
    return _status("VmRSS") if STATUS.is_file() else _peak()


def _status(key: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{key}:"))
    return 1024 * int(line.split()[1])
