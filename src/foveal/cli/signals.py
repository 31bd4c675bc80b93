"""Signals that end a command which has something to finish."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDINGS = tuple(getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n))
SIGNALLED = 128
"""What shells add to the number of the signal that ended a command."""


class Ended(KeyboardInterrupt):
    """A signal that ends the command; `code` is its exit code."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.code = SIGNALLED + number


@contextmanager
def finishing() -> Iterator[Callable[[], None]]:
    """Raise `Ended` at the first Ctrl-C, SIGTERM or SIGHUP; more of them are left out until the context ends.

    So what is being written can be finished. A signal that is ignored stays so, as `nohup` wants it; outside
    the main thread nothing changes.

    Yields:
        What leaves out the first one too, to be called before what is written is finished.

    Raises:
        Ended: Where the body is when the signal comes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    waits = True

    def calm() -> None:
        nonlocal waits
        waits = False

    def end(number: int, _: FrameType | None) -> None:
        if waits:
            calm()
            raise Ended(number)

    before = {number: signal.getsignal(number) for number in ENDINGS}
    heard = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
    try:
        for number in heard:
            signal.signal(number, end)
        yield calm
    finally:
        for number, old in heard.items():
            signal.signal(number, old)
