"""Files that one holder at a time has: locks that end with the process, however it ends."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

OPENED = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
"""A link in the place of a lock is an error: it may point anywhere."""


def hold(path: Path, wait: bool) -> int | None:
    """Open a file, made empty if absent, and lock it; closing the descriptor releases it.

    A holder may delete or move the file: whoever waited for it then takes the one in its place.

    Args:
        path: File of the lock.
        wait: Wait until it is free.

    Returns:
        The open descriptor; None where there are no locks (Windows, some file systems).

    Raises:
        BlockingIOError: Another holder has it, and `wait` is off.
        OSError: The file cannot be opened.
    """
    try:
        import fcntl
    except ImportError:
        return None
    while True:
        handle = os.open(path, OPENED, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.lstat(path)):
                    return handle
        except BlockingIOError:
            os.close(handle)
            raise
        except OSError:
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
