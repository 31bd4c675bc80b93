"""What a run has found so far, in files that are whole or absent: a killed run goes on from them.

They lie in a hidden folder beside the result, whose name says what was asked of which image: another image,
network or budget has another folder. Every file holds arrays, deflated in bands of rows, so that a strip of
the result reads what it needs of each.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from foveal.storage.atomic import write_atomically
from foveal.storage.reading import parse_json, read_bounded
from foveal.storage.schema import Count, Name, read_as

Array = np.ndarray[Any, Any]
BAND = 512
"""Rows that are deflated together."""
FAST = 1
"""Effort of zlib: maps of labels shrink to a hundredth with any."""
MOST_BYTES = 1 << 32
DIGITS = 16
MOST_HEADER = 1 << 24
WHAT = "part of a large result"


@dataclass(frozen=True)
class Entry:
    """What the header of a file says of an array: its shape, type, and the bytes of its bands of rows."""

    shape: Annotated[tuple[Count, ...], Field(min_length=1, max_length=4)]
    kind: Literal["|u1", "<f4", "<f8", "<i8", "|b1"]
    bytes: list[Count]

    def __post_init__(self) -> None:
        if len(self.bytes) != -(-self.shape[0] // BAND):
            raise ValueError(
                f"{self.shape[0]} rows are {-(-self.shape[0] // BAND)} bands, not {len(self.bytes)}"
            )
        most = math.prod(side or 1 for side in self.shape) * np.dtype(self.kind).itemsize  # NumPy counts so
        if most > MOST_BYTES:
            raise ValueError(f"an array of {most} bytes is too large")

    @property
    def row(self) -> int:
        """Bytes of a row."""
        return math.prod(self.shape[1:]) * np.dtype(self.kind).itemsize


class Parts:
    """The folder of a run.

    Args:
        out: Where the result goes.
        asked: All that the result depends on, as JSON has it.
    """

    def __init__(self, out: Path, asked: Mapping[str, object]) -> None:
        text = json.dumps(asked, sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
        self._stem = f".{out.name}."
        self.folder = out.parent / f"{self._stem}{digest}.windows"

    def make(self) -> None:
        """Make the folder.

        Raises:
            OSError: It cannot be made.
        """
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise OSError(
                f"{self.folder.parent} cannot be written ({error.strerror}); give another place with -o"
            ) from None

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        return (self.folder / name).is_file()

    def write(self, name: str, arrays: Mapping[str, Array]) -> None:
        """Write arrays [rows, ...] of numbers as one file.

        Raises:
            OSError: It cannot be written.
        """
        write_atomically(self.folder / name, pack(arrays))

    def read(self, name: str) -> Packed:
        """Open a file.

        Raises:
            ValueError: It is absent or damaged.
        """
        return Packed(self.folder / name)

    def folders(self) -> list[Path]:
        """Return the folders of all runs for the same result that are there, this one among them."""
        return sorted(self.folder.parent.glob(f"{_plain(self._stem)}{'[0-9a-f]' * DIGITS}.windows"))

    def finish(self) -> None:
        """Delete the folder, and those of other runs for the same result."""
        for folder in self.folders():
            shutil.rmtree(folder, ignore_errors=True)


def pack(arrays: Mapping[str, Array]) -> bytes:
    """Write arrays [rows, ...] as bytes: length and checksum of a header, it, and deflated bands of rows."""
    head: dict[str, Any] = {}
    blobs: list[bytes] = []
    for name, array in arrays.items():
        given = np.ascontiguousarray(array)
        bands = [zlib.compress(given[y : y + BAND].tobytes(), FAST) for y in range(0, len(given), BAND)]
        head[name] = {"shape": given.shape, "kind": given.dtype.str, "bytes": [len(b) for b in bands]}
        blobs += bands
    text = json.dumps(head).encode()
    return len(text).to_bytes(4, "little") + zlib.crc32(text).to_bytes(4, "little") + text + b"".join(blobs)


class Packed:
    """Arrays in a file that `pack` made.

    Raises:
        ValueError: The file is absent or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._data = read_bounded(path, WHAT, most=MOST_BYTES)
        size, checksum = (int.from_bytes(self._data[k : k + 4], "little") for k in (0, 4))
        text = self._data[8 : 8 + size]
        if not 0 < size <= min(MOST_HEADER, len(self._data) - 8) or zlib.crc32(text) != checksum:
            raise self._damaged()
        try:
            head = parse_json(text, path, WHAT)
            self._head = read_as(dict[Name, Entry], head, path, WHAT)
        except ValueError:
            raise self._damaged() from None
        self._places: dict[str, list[tuple[int, int]]] = {}
        at = 8 + size
        for name, entry in self._head.items():
            ends = np.cumsum([0, *entry.bytes]) + at
            self._places[name] = [(int(a), int(b)) for a, b in pairwise(ends)]
            at = int(ends[-1])
        if at != len(self._data):
            raise self._damaged()

    def __contains__(self, name: str) -> bool:
        return name in self._head

    def rows(
        self, name: str, first: int = 0, last: int | None = None, shape: tuple[int, ...] | None = None
    ) -> Array:
        """Return rows [first, last) of an array.

        Args:
            name: Its name.
            first: First row.
            last: Row after the last; all that there are if absent.
            shape: What the whole array has; anything if absent.

        Raises:
            ValueError: There is none, it has another shape, or it is damaged.
        """
        entry = self._head.get(name)
        if entry is None or shape not in (None, entry.shape):
            raise self._damaged()
        shape, kind, row = entry.shape, entry.kind, entry.row
        last = shape[0] if last is None else min(last, shape[0])
        found = []
        for band in range(first // BAND, -(-last // BAND)):
            start, end = self._places[name][band]
            rows = min(BAND, shape[0] - band * BAND)
            inflate = zlib.decompressobj()
            try:
                data = inflate.decompress(self._data[start:end], rows * row + 1)
            except zlib.error:
                raise self._damaged() from None
            if len(data) != rows * row or not inflate.eof or inflate.unused_data:
                raise self._damaged()
            found.append(np.frombuffer(data, kind).reshape(rows, *shape[1:]))
        whole: Array = np.concatenate(found) if found else np.zeros((0, *shape[1:]), kind)
        begin = first // BAND * BAND
        return whole[first - begin : last - begin]

    def _damaged(self) -> ValueError:
        return ValueError(f"{self.path} is damaged; delete the folder {self.path.parent.name}, and run again")


def _plain(stem: str) -> str:
    """Return a name as a pattern that means it literally."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in stem)
