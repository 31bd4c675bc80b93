"""Milliseconds: alternating runs in one process, median and 95th percentile."""

from __future__ import annotations

import ctypes
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1
LARGEST = 2**31 - 1


@dataclass(frozen=True)
class Timing:
    """Wall time of repeated runs [ms]."""

    runs: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median [ms]."""
        return statistics.median(self.runs)

    @property
    def p95(self) -> float:
        """95th percentile [ms]: the slowest run if there are fewer than 20."""
        return sorted(self.runs)[min(len(self.runs) - 1, int(0.95 * len(self.runs)))]


SETTLE = 0.01
"""Rest before a timed run [s]: threads that the run before has left spinning would take its cores."""

Timer = Callable[[dict[str, Callable[[], Any]], int, int], dict[str, Timing]]
"""Times runs by name in turns: runs, rounds, rounds before that; `alternate` is one."""


@torch.inference_mode()
def alternate(runs: dict[str, Callable[[], Any]], repeat: int = 10, warmup: int = 2) -> dict[str, Timing]:
    """Time several things turn by turn, so that a noisy moment hits all of them.

    Args:
        runs: What to time, by name; each synchronises by itself on a CPU, a GPU is waited for.
        repeat: Timed rounds.
        warmup: Rounds before that.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(warmup + repeat):
        for name, run in runs.items():
            settle()
            start = time.perf_counter()
            run()
            _wait()
            if turn >= warmup:
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: Timing(tuple(values)) for name, values in times.items()}


def settle() -> None:
    """Wait until nothing computes any more: before a run is timed."""
    _wait()
    time.sleep(SETTLE)


def keep_memory() -> bool:
    """Let glibc's allocator keep freed memory instead of returning it to the system.

    Large activations are otherwise mapped, zeroed page by page and unmapped for every layer, which costs
    more than half of the time of a network on a CPU. For the dense network as for the adaptive one.

    Returns:
        Whether the allocator took the settings (it does on Linux with glibc).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, LARGEST))


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
