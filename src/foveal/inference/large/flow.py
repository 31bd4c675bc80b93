"""Reading, computing and writing at the same time, with little waiting in between."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S")
WAITING = 1
"""What may wait between two steps: memory is that of a few windows."""


class _Stopped(Exception):
    """Another step has failed."""


def flow(
    items: Iterable[T],
    read: Callable[[T], R],
    compute: Callable[[T, R], S],
    write: Callable[[T, S], None],
) -> None:
    """Read, compute and write item by item, in order; each step in a thread, computing in the caller's.

    What fails first is raised here, and nothing of it is left running.
    """
    ready: queue.Queue[Any] = queue.Queue(WAITING)
    done: queue.Queue[Any] = queue.Queue(WAITING)
    failed: list[BaseException] = []
    stop = threading.Event()

    def reading() -> None:
        for item in items:
            _put(ready, (item, read(item)), stop)
        _put(ready, None, stop)

    def writing() -> None:
        while (entry := _take(done, stop)) is not None:
            write(*entry)

    def computing() -> None:
        while (entry := _take(ready, stop)) is not None:
            _put(done, (entry[0], compute(*entry)), stop)
        _put(done, None, stop)

    threads = [threading.Thread(target=_guard, args=(job, failed, stop)) for job in (reading, writing)]
    for thread in threads:
        thread.start()
    _guard(computing, failed, stop)
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def _guard(job: Callable[[], None], failed: list[BaseException], stop: threading.Event) -> None:
    """Run a step; keep what it raises, and stop the others."""
    try:
        job()
    except _Stopped:
        pass
    except BaseException as error:
        failed.append(error)
        stop.set()


def _put(to: queue.Queue[Any], value: Any, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            to.put(value, timeout=0.1)
            return
        except queue.Full:
            continue
    raise _Stopped


def _take(of: queue.Queue[Any], stop: threading.Event) -> Any:
    while not stop.is_set():
        try:
            return of.get(timeout=0.1)
        except queue.Empty:
            continue
    raise _Stopped
