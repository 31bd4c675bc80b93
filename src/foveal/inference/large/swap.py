"""Putting a folder in the place of an old one: the old one is never lost, whatever ends the process.

Folders cannot be replaced in one step everywhere, so the old one is moved away first. An error moves it back,
and after a kill the next start does.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from foveal.storage.atomic import flush_folder, flush_tree
from foveal.storage.lock import hold

LOCK = "writing"
"""File in the folder of a run that the process holds which writes the result."""
OLD = ".old"
"""After the name of a result that was moved away."""


def put_in_place(new: Path, out: Path, temporary: Path) -> None:
    """Move a folder to its place when all of it is on the disk, and delete what was there.

    Args:
        new: The folder, on the file system of the result.
        out: Where it goes; a folder or a link that is there gives way.
        temporary: Folder of the run, where the old result lies meanwhile.

    Raises:
        OSError: It cannot be moved; the old result is where it was, or the sentence says where it lies.
    """
    old = temporary / f"{out.name}{OLD}"
    _delete(old)
    flush_tree(new)
    try:
        if os.path.lexists(out):
            out.replace(old)
        new.replace(out)
    except BaseException as error:
        _bring_back(old, out)
        if isinstance(error, OSError) and os.path.lexists(old) and not os.path.lexists(out):
            raise OSError(
                f"{error.strerror}; the old one lies in {old}, and the next run puts it back"
            ) from None
        raise
    flush_folder(out.parent)
    _delete(old)


def restore(folders: Iterable[Path], results: Sequence[Path]) -> None:
    """Bring back old results that a killed process had moved away, if nothing has taken their place.

    A folder of a run that another process is writing the result of is left alone.

    Args:
        folders: Folders of runs.
        results: What they write.
    """
    for folder in folders:
        if not any(os.path.lexists(folder / f"{out.name}{OLD}") for out in results):
            continue
        try:
            handle = hold(folder / LOCK, wait=False)
        except OSError:
            continue
        try:
            for out in results:
                _bring_back(folder / f"{out.name}{OLD}", out)
        finally:
            if handle is not None:
                os.close(handle)


def _bring_back(old: Path, out: Path) -> None:
    """Move an old result back where nothing is in its place; if that fails, the next start tries again."""
    with suppress(OSError):
        if os.path.lexists(old) and not os.path.lexists(out):
            old.replace(out)
            flush_folder(out.parent)


def _delete(old: Path) -> None:
    """Delete a folder, or a link to one."""
    if old.is_symlink():
        old.unlink(missing_ok=True)
    else:
        shutil.rmtree(old, ignore_errors=True)
