"""Changes of bytes that damaged and hostile files show: seeded, so that a case can be run again."""

from __future__ import annotations

import re
from random import Random

WORDS = (
    b"NaN", b"1e400", b"-1", b"0", b"99999999999", b"9" * 30, b"null", b"true", b"[]", b"{}", b'""',
    b"[" * 200, b"\xff\xfe", b"\x00", b"1.5", b'"a"', b"nan", b"inf",
)  # fmt: skip


def mutate(data: bytes, source: Random) -> bytes:
    """Return the bytes with one to four changes or, every third time, one digit changed, which often fits."""
    if source.random() < 0.33:
        return _digit(data, source)
    for _ in range(source.randint(1, 4)):
        data = source.choice((_flip, _cut, _repeat, _number, _word, _swap))(data, source)
    return data


def _place(data: bytes, source: Random) -> int:
    """Choose a place, mostly in the first kilobyte, where headers lie."""
    return source.randrange(min(len(data), source.choice((64, 1024, len(data) or 1))) or 1)


def _flip(data: bytes, source: Random) -> bytes:
    at = _place(data, source)
    return data[:at] + bytes([source.randrange(256)]) + data[at + 1 :]


def _cut(data: bytes, source: Random) -> bytes:
    return (
        data[: _place(data, source)] if source.random() < 0.3 else data[: len(data) - source.randint(1, 40)]
    )


def _repeat(data: bytes, source: Random) -> bytes:
    at, count = _place(data, source), source.randint(1, 64)
    return data[:at] + data[at : at + count] * source.randint(2, 20) + data[at + count :]


def _swap(data: bytes, source: Random) -> bytes:
    at, count = _place(data, source), source.randint(1, 16)
    return data[:at] + data[at : at + count][::-1] + data[at + count :]


def _digit(data: bytes, source: Random) -> bytes:
    """Put one digit in the place of another; where there is none, flip a bit."""
    found = [at for at, byte in enumerate(data[:4096]) if byte in b"0123456789"]
    at = source.choice(found) if found else source.randrange(len(data))
    changed = source.choice(b"0123456789") if found else data[at] ^ 1 << source.randrange(8)
    return data[:at] + bytes([changed]) + data[at + 1 :]


def _word(data: bytes, source: Random) -> bytes:
    at = _place(data, source)
    return data[:at] + source.choice(WORDS) + data[at + source.randint(0, 8) :]


def _number(data: bytes, source: Random) -> bytes:
    """Put something else in the place of a number of a text."""
    found = list(re.finditer(rb"-?\d[\d.e+-]*", data[:4096]))
    if not found:
        return data
    chosen = source.choice(found)
    return data[: chosen.start()] + source.choice(WORDS) + data[chosen.end() :]
