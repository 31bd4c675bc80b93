"""A program as one file: a safetensors container with its tables, readable without PyTorch.

Four tables lie one behind the other, nothing between or behind them. The metadata name the format, its
version (it counts changes that an older reader would misread), the steps, and `info`: whose program it is, if
that is known. `kernels/cpu/embed/file.c` reads the same in C, and refuses the same.
"""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any

import numpy as np

from foveal.program.builder import Tables
from foveal.program.info import ProgramInfo
from foveal.program.spec import (
    HEAD_BEFORE,
    MAP_BEFORE,
    MULTIPLE_SINCE,
    NUMBER_FIELDS,
    OLDEST_VERSION,
    SIDES_SINCE,
    VERSION,
    Head,
    MapSpec,
    StepSpec,
)
from foveal.storage.atomic import replacing
from foveal.storage.finite import check_finite
from foveal.storage.reading import parse_json, read_bounded, shorten

FORMAT = "foveal-program"
KINDS = {"head": ("U8", 1), "maps": ("U8", 1), "steps": ("U8", 1), "numbers": ("F32", 4)}
"""Tables in the order in which they lie, their type and the bytes of an element."""
READ = tuple(map(str, range(OLDEST_VERSION, VERSION + 1)))
MOST_BYTES = 1 << 32
MOST_HEADER = 1 << 24
"""Bytes of a header above which a file is no program."""


def write_tables(tables: Tables, path: Path, info: ProgramInfo | None = None) -> None:
    """Write tables, and who they are; the file appears whole or not at all.

    Raises:
        OSError: It cannot be written; an older file is then as it was.
    """
    held = (bytes(tables.head), bytes(tables.maps), bytes(tables.steps), tables.numbers.tobytes())
    parts = dict(zip(KINDS, held, strict=True))
    metadata = {"format": FORMAT, "version": str(VERSION), "names": json.dumps(tables.names)}
    if info is not None:
        metadata["info"] = info.to_json()
    header: dict[str, Any] = {"__metadata__": metadata}
    at = 0
    for name, data in parts.items():
        kind, width = KINDS[name]
        header[name] = {"dtype": kind, "shape": [len(data) // width], "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 64 + 56)  # so that data starts at a multiple of 64 bytes
    with replacing(path) as part, part.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for data in parts.values():
            file.write(data)


def read_tables(path: Path) -> tuple[Tables, ProgramInfo | None]:
    """Read tables, and who they are if the file says it.

    Raises:
        ValueError: The file holds no program, or one of another version, is cut short, or holds NaN or
            infinity.
    """
    data = read_bounded(path, "program", most=MOST_BYTES)
    try:
        header, parts = _read_parts(data)
        metadata = header["__metadata__"]
        if int(metadata["version"]) < SIDES_SINCE:
            parts["maps"] = _with_sides(parts["maps"])
        if int(metadata["version"]) < MULTIPLE_SINCE:
            parts["head"] += bytes(ctypes.sizeof(Head) - HEAD_BEFORE)  # any sides will do
        head = Head.from_buffer_copy(parts["head"])
        maps = (MapSpec * head.maps).from_buffer_copy(parts["maps"])
        steps = (StepSpec * head.steps).from_buffer_copy(parts["steps"])
        names = tuple(parse_json(metadata["names"], "its names", "JSON"))
        info = ProgramInfo.from_json(metadata["info"]) if "info" in metadata else None
        held = [len(parts[name]) for name in ("head", "maps", "steps")]
        if held != [ctypes.sizeof(table) for table in (head, maps, steps)] or len(names) != head.steps:
            raise ValueError("its tables do not belong together")
        numbers = np.frombuffer(parts["numbers"], np.float32)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} holds no program of this version ({shorten(error)})") from None
    _check(path, head, maps, steps, len(numbers))
    _check_finite(path, steps, names, numbers)
    return Tables(head, maps, steps, numbers, names), info


def _read_parts(data: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the header, and the bytes of every table.

    Raises:
        KeyError, TypeError, ValueError: It is no container of the tables of a program of this version.
    """
    size = int.from_bytes(data[:8], "little")
    if size > min(MOST_HEADER, len(data) - 8):
        raise ValueError("it is cut short, or its header is too large")
    header = parse_json(data[8 : 8 + size], "its header", "JSON")
    metadata = header["__metadata__"]
    if metadata["format"] != FORMAT or metadata["version"] not in READ:
        raise ValueError(f"it is of format {metadata['format']} {metadata['version']}")
    if set(header) != {"__metadata__", *KINDS}:
        raise ValueError("it holds other tables than those of a program")
    at, parts = 8 + size, {}
    for name, (kind, width) in KINDS.items():
        (first, last), (count,) = header[name]["data_offsets"], header[name]["shape"]
        if (header[name]["dtype"], first, last - first) != (kind, at - 8 - size, count * width):
            raise ValueError(f"its table '{name}' is of another type or size, or lies elsewhere")
        at += count * width
        parts[name] = data[8 + size + first : at]
    if at != len(data):
        raise ValueError("it is cut short, or something lies behind its tables")
    return header, parts


def _with_sides(maps: bytes) -> bytes:
    """Write maps of an older file as they are now: all of their sides are those of the image."""
    rest = bytes(ctypes.sizeof(MapSpec) - MAP_BEFORE)
    return b"".join(maps[k : k + MAP_BEFORE] + rest for k in range(0, len(maps), MAP_BEFORE))


def _check(path: Path, head: Head, maps: Any, steps: Any, count: int) -> None:
    """Refuse tables that would make native code read beyond them."""
    good = all(0 <= m < head.maps for m in (head.input, head.output)) and all(
        m.channels > 0 < m.stride for m in maps
    )
    for step in steps:
        good = (
            good
            and 0 <= step.input < head.maps
            and 0 <= step.out < head.maps
            and -1 <= step.other < head.maps
        )
        good = good and all(-1 <= getattr(step, name) < count for name in NUMBER_FIELDS)
    if not good:
        raise ValueError(f"{path} holds no program of this version (a table points beyond another)")


def _check_finite(path: Path, steps: Any, names: tuple[str, ...], numbers: np.ndarray[Any, Any]) -> None:
    """Refuse numbers that are NaN or infinite, by the step and the field that they belong to."""
    if np.isfinite(numbers).all():
        return
    starts = {
        getattr(step, f): f"{name}.{f}"
        for step, name in zip(steps, names, strict=True)
        for f in NUMBER_FIELDS
    }
    places = sorted(at for at in starts if at >= 0)
    ends = [*places[1:], len(numbers)]
    parts = {starts[a]: numbers[a:b] for a, b in zip(places, ends, strict=True)}
    check_finite(parts | {"numbers": numbers}, path)
