"""Atomic replacement of files."""

from __future__ import annotations

import os
import threading
from pathlib import Path


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a crash at any moment, finds the old content or the new one.

    The content goes to a new file in the same folder, is flushed to the disk, and takes the old one's place.

    Args:
        path: File to write; its folder exists.
        content: Text, written as UTF-8, or bytes.

    Raises:
        OSError: The folder cannot be written, or the disk is full; the old file is then as it was.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    data = content.encode() if isinstance(content, str) else content
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
