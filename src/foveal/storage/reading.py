"""Reading JSON and TOML: the one place where text that somebody else may have written becomes values.

Size and depth are bounded, numbers are finite and fit into 64 bits, and whatever is wrong is one sentence.
"""

from __future__ import annotations

import json
import math
import os
import tomllib
from pathlib import Path
from typing import Any

MOST_BYTES = 1 << 25
"""A plan of 10 million cells fits; what is parsed takes about 20 times the memory."""
MOST_DEPTH = 32
"""Of lists within lists; the deepest file of ours has 8."""
MOST_DIGITS = 19
"""Of a whole number: those that fit into 64 bits."""
MOST_SAID = 160
"""Characters of a reason."""


def read_json(path: str | Path, what: str, kind: type[ValueError] = ValueError) -> Any:
    """Read a JSON file.

    Args:
        path: A regular file.
        what: What it should hold, in the singular: "plan", "model card", ...
        kind: Error to raise.

    Raises:
        ValueError: It cannot be read, is too large or too deep, or holds no JSON, or a number that is NaN,
            infinite or of more than 64 bits.
    """
    return parse_json(read_bounded(path, what, kind), path, what, kind)


def parse_json(
    text: str | bytes, where: object, what: str, kind: type[ValueError] = ValueError, finite: bool = True
) -> Any:
    """Read JSON that lies in another file; as `read_json`, and NaN and infinity too unless `finite`."""
    number = _finite if finite else float
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        value = json.loads(text, parse_float=number, parse_int=_whole, parse_constant=number)
        _check_depth(value)
    except (ValueError, RecursionError, MemoryError) as error:
        raise kind(refusal(where, what, error)) from None
    return value


def read_toml(path: str | Path, what: str, kind: type[ValueError] = ValueError) -> dict[str, Any]:
    """Read a TOML file; as `read_json`."""
    return parse_toml(read_bounded(path, what, kind), path, what, kind)


def parse_toml(
    text: str | bytes, where: object, what: str, kind: type[ValueError] = ValueError
) -> dict[str, Any]:
    """Read TOML that was given in another way; as `read_json`."""
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        value = tomllib.loads(text.replace("\r\n", "\n"))  # NaN and infinity are refused by the schema
        _check_depth(value)
    except (ValueError, RecursionError, MemoryError) as error:
        raise kind(refusal(where, what, error)) from None
    return value


def read_bounded(
    path: str | Path, what: str, kind: type[ValueError] = ValueError, most: int = MOST_BYTES
) -> bytes:
    """Read a regular file of at most so many bytes.

    Raises:
        ValueError: There is none, it may not be read, or it is larger.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise kind(refusal(path, what, "it is no regular file"))
        with path.open("rb") as file:  # as much memory as is asked for is taken at once
            data = file.read(min(most, os.fstat(file.fileno()).st_size) + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, kind):
            raise
        raise kind(refusal(path, what, getattr(error, "strerror", None) or error)) from None
    if len(data) > most:
        raise kind(refusal(path, what, f"it has more than {most} bytes"))
    return data


def refusal(where: object, what: str, error: object) -> str:
    """Say that something is not what it should be, and why."""
    kinds: dict[type, str] = {RecursionError: "it is nested too deeply", MemoryError: "it is too large"}
    return f"{where}: no {what} ({kinds.get(type(error)) or shorten(error)})"


def shorten(text: object, most: int = MOST_SAID) -> str:
    """Return a text in one line of at most so many characters, with a sign for what is left out."""
    line = " ".join(str(text).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {shorten(text, 24)} is not finite")
    return value


def _whole(text: str) -> int:
    if len(text.lstrip("-")) > MOST_DIGITS or not -(1 << 63) <= (value := int(text)) < 1 << 63:
        raise ValueError(f"the number {shorten(text, 24)} does not fit into 64 bits")
    return value


def _check_depth(value: Any) -> None:
    """Refuse what is nested too deeply, and whole numbers beyond 64 bits."""
    level = [value]
    for _ in range(MOST_DEPTH):
        parts = (v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list))
        level = [part for some in parts for part in some]
        for part in level:
            if type(part) is int and not -(1 << 63) <= part < 1 << 63:
                raise ValueError("a number does not fit into 64 bits")
        if not level:
            return
    raise ValueError(f"it is nested more than {MOST_DEPTH} deep")
