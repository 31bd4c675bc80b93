"""What callers give: arguments of another type are refused in one sentence, before anything is done."""

from __future__ import annotations

from os import PathLike
from typing import Any


class WrongType(TypeError, ValueError):
    """An argument is of another type; the message says what was given, and what to give."""


def need(value: Any, kind: type | tuple[type, ...], name: str, give: str) -> None:
    """Refuse an argument of another type.

    Args:
        value: What was given.
        kind: What it must be.
        name: Name of the argument.
        give: What to give, in words.

    Raises:
        WrongType: It is something else.
    """
    if not isinstance(value, kind):
        said = f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
        raise WrongType(f"{name} is {said}; give {give}")


def need_path(value: Any, name: str, give: str = "the name of a file") -> None:
    """Refuse what is no name of a file or folder; as `need`."""
    need(value, (str, PathLike), name, give)
