"""The one way to write a file: its content appears whole, in the place of the old one, or not at all."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from foveal.storage.lock import hold


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a crash at any moment, finds the old content or the new one.

    Args:
        path: File to write; its folder exists.
        content: Text, written as UTF-8, or bytes.

    Raises:
        OSError: As of `replacing`.
    """
    data = content.encode() if isinstance(content, str) else content
    with replacing(path) as part, part.open("wb") as file:
        file.write(data)


@contextmanager
def replacing(path: str | Path, *, wait: bool = True) -> Iterator[Path]:
    """Give the path of a new file, for whatever writes to a path, that takes the place of `path` at the end.

    As `replacing_all` for one file.
    """
    with replacing_all([path], wait=wait) as parts:
        yield parts[0]


@contextmanager
def replacing_all(paths: Sequence[str | Path], *, wait: bool = True) -> Iterator[list[Path]]:
    """Write files that belong together: all are complete and on the disk before the first is replaced.

    The new files lie in the folders of the old ones, under a hidden name with the same suffix; they exist and
    are empty. Nothing of them is left after an error. What a kill leaves is replaced by the next writer of
    the same file; writers of the same file wait for one another. A symbolic link is replaced, not followed.

    Args:
        paths: Files to write; their folders exist.
        wait: Whether to wait for another writer of the same file, which may take long; else it is an error.

    Yields:
        Paths to write to, in the same order.

    Raises:
        OSError: A folder cannot be written, the disk is full, something that is no file is in the way, or
            another writer is not waited for; the sentence names the file, and the old files are as they were.
    """
    with ExitStack() as stack:
        wanted = [Path(path) for path in paths]
        parts = [stack.enter_context(_new_file(path, wait)) for path in wanted]
        with _named(wanted[0] if len(wanted) == 1 else wanted[0].parent):
            yield parts
        for path, part in zip(wanted, parts, strict=True):
            with _named(path):
                _reach_disk(part, path)
        for path, part in zip(wanted, parts, strict=True):
            with _named(path):
                part.replace(path)
        for folder in {path.parent for path in wanted}:
            flush_folder(folder)


def flush_folder(folder: Path) -> None:
    """Flush the names of a folder, where the system can; the files are whole without it."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def flush_tree(folder: Path) -> None:
    """Flush a folder and all files and folders in it to the disk; links are not followed.

    Raises:
        OSError: A file cannot be flushed, as on a full disk.
    """
    for place, _, files in os.walk(folder, topdown=False):
        for name in files:
            handle = os.open(Path(place, name), os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        flush_folder(Path(place))


@contextmanager
def _new_file(path: Path, wait: bool) -> Iterator[Path]:
    """Make an empty file beside a path, held while the context is open and gone at its end."""
    with _named(path):
        if path.exists() and not path.is_file():
            raise OSError("something that is no file is in the way")
        part = path.with_name(f".{path.stem}.part{path.suffix}")
        handle = _claim(part, wait)
        if handle is None:  # no locks here: nobody else may have the same name
            part.unlink(missing_ok=True)
            part = path.with_name(f".{path.stem}.{os.getpid()}-{threading.get_ident()}.part{path.suffix}")
            part.touch()
    try:
        if handle is not None:  # a rest of a killed writer
            with _named(path):
                os.ftruncate(handle, 0)
        yield part
    finally:
        # Once the file has taken its place, its hidden name may be that of the next holder.
        with suppress(FileNotFoundError):
            if handle is None or os.path.samestat(os.fstat(handle), os.lstat(part)):
                part.unlink()
        if handle is not None:
            os.close(handle)


def _claim(part: Path, wait: bool) -> int | None:
    """Hold a file; what somebody else left there, a link or a file of another user, is deleted."""
    try:
        return hold(part, wait)
    except BlockingIOError:
        raise OSError("another process is writing it") from None
    except OSError:
        if not os.path.lexists(part):
            raise
        part.unlink()
        return hold(part, wait)


def _reach_disk(part: Path, path: Path) -> None:
    """Flush a file to the disk, with the permissions of the file that it will replace."""
    with part.open("rb+") as file:
        with suppress(FileNotFoundError):
            old = os.lstat(path)
            if stat.S_ISREG(old.st_mode):
                part.chmod(stat.S_IMODE(old.st_mode))
        os.fsync(file.fileno())


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file in errors of the system."""
    try:
        yield
    except OSError as error:
        named = type(error)(f"{path} cannot be written ({error.strerror or error}){_hint(path)}")
        named.errno = error.errno
        raise named from None


def _hint(path: Path) -> str:
    return "" if path.parent.is_dir() else f"; make the folder {path.parent} first"
