"""Cases in processes of their own: what native code does there is one failed case, not the end of the tests.

A process is forked from this one, where everything is imported, and runs one case after the other on one
thread. It may map 4 GiB more than it had and grow by 2 GiB. Where a case takes 10 s of processors, a timer
ends it, which needs no Python; where it takes two minutes and waits, this process does, and does not count
the time for which both were stopped. So a machine that does much else fails no case. The case that a process
ended in is known by its number, and the next process goes on behind it.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, TextIO

import torch

SLOW, PATIENCE, MOST_MAPPED, MOST_GROWTH = 10.0, 12, 4 << 30, 2 << 20
"""Seconds of processors that a case may take, and how many times as long by the clock; bytes that a process
may map more than before; kilobytes that it may grow by."""
MOST_FAILED = 3
"""Failed cases after which no other is run."""
LOOK, PAUSE = 0.02, 0.5
"""Seconds between two looks at a process, and the most that count: where more went by, both were stopped."""


@dataclass
class Outcome:
    """What became of cases: how many ended in which word, and a sentence for each that failed."""

    ended: Counter[str] = field(default_factory=Counter)
    failed: dict[int, str] = field(default_factory=dict)


def run_cases(case: Callable[[int], str], seeds: range, end: float, folder: Path) -> Outcome:
    """Run a case for every seed until a time, each of which returns a word or raises an error.

    Args:
        case: Runs one.
        seeds: Of the cases.
        end: Time, of `time.monotonic`, after which no other case begins.
        folder: For what the processes leave behind.
    """
    found = Outcome()
    while seeds and time.monotonic() < end and len(found.failed) < MOST_FAILED:
        notes, trace = folder / "notes.jsonl", folder / "trace.txt"
        child = os.fork()
        if not child:
            _work(case, seeds, end, notes, trace)
        status, waited = _wait(child, notes)
        rows = [json.loads(line) for line in notes.read_text().splitlines()]
        last = rows[-1]["seed"] if rows else seeds.start
        for row in rows:
            if "word" in row:
                found.ended[row["word"]] += 1
            elif "error" in row:
                found.failed[row["seed"]] = row["error"]
        if status:
            found.failed.setdefault(last, _death(status, waited, trace.read_text()))
        seeds = range(last + 1, seeds.stop) if rows else range(0)
    return found


def _wait(child: int, notes: Path) -> tuple[int, bool]:
    """Wait for a process; return its status, and whether it was ended because nothing happened for long."""
    quiet, size, last, waited = 0.0, 0, time.monotonic(), False
    while not (found := os.waitpid(child, os.WNOHANG))[0]:
        time.sleep(LOOK)
        now, written = time.monotonic(), notes.stat().st_size if notes.exists() else 0
        quiet = 0.0 if written != size else quiet + min(now - last, PAUSE)
        size, last = written, now
        if quiet > PATIENCE * SLOW and not waited:
            waited = True
            os.kill(child, signal.SIGABRT)  # it says where it is
    return found[1], waited


def _work(case: Callable[[int], str], seeds: Iterable[int], end: float, notes: Path, trace: Path) -> NoReturn:
    """Run cases in the forked process, which ends here."""
    status = 1
    try:
        with notes.open("w", buffering=1) as told, trace.open("w") as traced:
            faulthandler.enable(traced)
            faulthandler.register(signal.SIGPROF, traced, chain=True)  # and what it does by itself: the end
            torch.set_num_threads(1)  # those of the process that was forked are not there
            _limit_memory()
            _run(case, seeds, end, told)
            status = 0
    finally:
        os._exit(status)  # nothing of the process that was forked is cleaned up here


def _run(case: Callable[[int], str], seeds: Iterable[int], end: float, told: TextIO) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in seeds:
        if time.monotonic() > end:
            return
        told.write(json.dumps({"seed": seed}) + "\n")
        signal.setitimer(signal.ITIMER_PROF, SLOW)
        try:
            row = {"word": case(seed)}
        except BaseException as error:
            row = {"error": "".join(traceback.format_exception(error))}
        signal.setitimer(signal.ITIMER_PROF, 0)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        if grown > MOST_GROWTH:
            row = {"error": f"the process has grown by {grown >> 10} MiB"}
        told.write(json.dumps({"seed": seed, **row}) + "\n")
        if "error" in row:
            return  # the next one begins in a fresh process


def _limit_memory() -> None:
    statistics = Path("/proc/self/statm")
    if statistics.is_file():
        mapped = int(statistics.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + MOST_MAPPED,) * 2)


def _death(status: int, waited: bool, trace: str) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGPROF:
        said = f"it takes longer than {SLOW:g} s"
    elif waited:
        said = f"it takes longer than {PATIENCE * SLOW:g} s, most of them waiting"
    else:
        said = (
            f"its process ended by {signal.Signals(-code).name}"
            if code < 0
            else f"its process ended with {code}"
        )
    return f"{said}\n{trace[:3000]}"
