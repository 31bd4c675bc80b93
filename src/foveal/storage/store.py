"""Records of what was measured once, as JSON files that several processes may read and change."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from foveal.storage.atomic import write_atomically
from foveal.storage.cache import folder
from foveal.storage.lock import hold
from foveal.storage.reading import read_json, shorten
from foveal.storage.said import warn_once

Record = dict[str, Any]
"""A JSON object."""


class OtherVersion(ValueError):
    """A record was written by another version of the program."""


class Store:
    """Records of one kind by key, one file each: `{"version": ..., "record": {...}}`.

    A file that cannot be read, is no JSON, has another layout or another version counts as empty: `read`
    finds nothing there, and the next change replaces it; all but another version is warned of, once. Readers
    need no lock, since files are replaced at once. Changes of a record wait for one another at an empty file
    in the cache, which stays.

    Args:
        namespace: Folder of the records within the cache folder.
        version: Of what the records hold; raised whenever older ones can no longer be used.
        place: Folder of the records if they do not lie in the cache.
    """

    def __init__(self, namespace: str, version: int, place: Path | None = None) -> None:
        self.namespace, self.version, self._place = namespace, version, place

    @property
    def place(self) -> Path:
        """Folder of the records; the cache may move with the environment."""
        return self._place or folder() / self.namespace

    def path(self, key: str) -> Path:
        """Return the file of a record."""
        return self.place / f"{key}.json"

    def read(self, key: str) -> Record | None:
        """Return a record; None if there is none, or its file counts as empty."""
        try:
            return self._load(key)
        except (FileNotFoundError, NotADirectoryError, OtherVersion):
            return None
        except (OSError, ValueError, RecursionError) as error:
            self.doubt(key, error)
            return None

    def doubt(self, key: str, problem: Exception) -> None:
        """Warn, once for a file, that a record is of no use."""
        path = self.path(key)
        said = str(problem).removeprefix(f"{path}: ")
        warn_once(path, f"{path}: {said}; it counts as empty, and is written anew", stacklevel=4)

    def problem(self, key: str) -> str:
        """Say why a file that is there counts as empty; an empty string if it is absent or holds a record."""
        if not self.path(key).is_file():
            return ""
        try:
            self._load(key)
        except (OSError, ValueError, RecursionError) as error:
            return str(error)
        return ""

    def write(self, key: str, record: Record) -> Path:
        """Replace a record; return its file.

        Raises:
            OSError: The folder cannot be written, or the disk is full; the old record is then as it was.
        """
        with self._locked(key):
            return self._replace(key, record)

    def update(self, key: str, entries: Record) -> Path:
        """Put entries into a record, keep its others, also of other processes, and return the file.

        Raises:
            OSError: As of `write`.
        """
        with self._locked(key):
            return self._replace(key, (self.read(key) or {}) | entries)

    def delete(self, key: str) -> None:
        """Delete a record, if there is one.

        Raises:
            OSError: The folder cannot be written.
        """
        if self.path(key).is_file():
            with self._locked(key):
                self.path(key).unlink(missing_ok=True)

    def _load(self, key: str) -> Record:
        if not self.path(key).exists():
            raise FileNotFoundError(self.path(key))
        found = read_json(self.path(key), "record")
        if not isinstance(found, dict) or not isinstance(found.get("record"), dict):
            raise ValueError(f"{self.path(key)}: no record (it holds something else)")
        if found.get("version") != self.version:
            raise OtherVersion(
                f"{self.path(key)}: no record (it is of version {shorten(found.get('version'), 20)}, not "
                f"{self.version})"
            )
        return found["record"]

    def _replace(self, key: str, record: Record) -> Path:
        text = json.dumps({"version": self.version, "record": record}, indent=1)
        write_atomically(self.path(key), text + "\n")
        return self.path(key)

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Let one process or thread at a time change a record."""
        self.place.mkdir(0o777 if self._place else 0o700, parents=True, exist_ok=True)
        handle = None
        with suppress(OSError):  # where there are no locks an update may be lost, but no file is damaged
            handle = hold(self._lock(key), wait=True)
        try:
            yield
        finally:
            if handle is not None:
                os.close(handle)

    def _lock(self, key: str) -> Path:
        """Return the file at which changes of a record wait; in the cache, so that nothing lies beside it."""
        name = hashlib.sha256(str(self.path(key).resolve()).encode()).hexdigest()[:32]
        path = folder() / "locks" / name
        path.parent.mkdir(0o700, parents=True, exist_ok=True)
        return path
