"""A program as one file: a safetensors container with its tables, readable without PyTorch."""

from __future__ import annotations

import ctypes
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from foveal.program.builder import Tables
from foveal.program.spec import VERSION, Head, MapSpec, StepSpec

FORMAT = "foveal-program"
MOST_HEADER = 1 << 24
"""Bytes of a header above which a file is no program."""


def write_tables(tables: Tables, path: Path) -> None:
    """Write tables; the file appears whole or not at all."""
    parts = {
        "head": ("U8", bytes(tables.head)),
        "maps": ("U8", bytes(tables.maps)),
        "steps": ("U8", bytes(tables.steps)),
        "numbers": ("F32", tables.numbers.tobytes()),
    }
    metadata = {"format": FORMAT, "version": str(VERSION), "names": json.dumps(tables.names)}
    header: dict[str, Any] = {"__metadata__": metadata}
    at = 0
    for name, (kind, data) in parts.items():
        count = len(data) // (4 if kind == "F32" else 1)
        header[name] = {"dtype": kind, "shape": [count], "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 64 + 56)  # so that data starts at a multiple of 64 bytes
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with scratch.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, data in parts.values():
            file.write(data)
    scratch.replace(path)


def read_tables(path: Path) -> Tables:
    """Read tables.

    Raises:
        ValueError: The file holds no program, or one of another version, or is cut short.
    """
    data = path.read_bytes()
    try:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + min(size, MOST_HEADER)])
        metadata = header["__metadata__"]
        if metadata["format"] != FORMAT or metadata["version"] != str(VERSION):
            raise ValueError(f"it is of format {metadata['format']} {metadata['version']}")
        parts = {}
        for name in ("head", "maps", "steps", "numbers"):
            first, last = header[name]["data_offsets"]
            parts[name] = data[8 + size + first : 8 + size + last]
            if len(parts[name]) != last - first:
                raise ValueError("it is cut short")
        head = Head.from_buffer_copy(parts["head"])
        maps = (MapSpec * head.maps).from_buffer_copy(parts["maps"])
        steps = (StepSpec * head.steps).from_buffer_copy(parts["steps"])
        names = tuple(json.loads(metadata["names"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no program of this version ({error})") from None
    if ctypes.sizeof(head) != len(parts["head"]) or len(names) != head.steps:
        raise ValueError(f"{path} holds no program of this version (its tables do not belong together)")
    numbers = np.frombuffer(parts["numbers"], np.float32)
    _check(path, head, maps, steps, len(numbers))
    return Tables(head, maps, steps, numbers, names)


def _check(path: Path, head: Head, maps: Any, steps: Any, count: int) -> None:
    """Refuse tables that would make native code read beyond them."""
    offsets = ("weight", "bias", "before_scale", "before_shift", "residual_scale", "outside")
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
        good = good and all(-1 <= getattr(step, name) < count for name in offsets)
    if not good:
        raise ValueError(f"{path} holds no program of this version (a table points beyond another)")
