"""Look-up by name, with a suggestion if the name is close to a known one; names that others chose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

from foveal.storage.given import need

T = TypeVar("T")


def find(name: str, table: Mapping[str, T], what: str) -> T:
    """Return the entry of a name.

    Args:
        name: The name that was given.
        table: Entries by name.
        what: What the entries are, in the singular: "policy", "method", ...

    Raises:
        ValueError: There is no entry of that name; the message names the closest one, and all.
    """
    need(name, str, what, f"a name: {', '.join(table) or 'none is available'}")
    if name not in table:
        raise ValueError(
            f"no {what} named '{name}'; {suggestion(name, table)}available: {', '.join(table) or 'none'}"
        )
    return table[name]


def shown(text: object, keep: str = "") -> str:
    """Return foreign text as one line whose characters cannot command a terminal.

    Args:
        text: A name of a class, a model, a file: whatever others wrote.
        keep: Characters that stay though they are not printable.
    """
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape", "replace").decode()
        for c in str(text)
    )


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return "did you mean '...'? " with the closest known name; empty if none is close."""
    close = get_close_matches(name, list(known), 1)
    return f"did you mean '{close[0]}'? " if close else ""
