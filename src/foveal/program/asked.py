"""What callers ask of a run of a program: values of other types are refused before native code sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from numbers import Integral, Real
from typing import Any

import numpy as np

from foveal.program.images import as_array
from foveal.storage.given import WrongType, need

MOST = (1 << 31) - 1
"""Largest whole number of native code."""
WHOLE, NUMBER = "a whole number", "a number"
KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((Integral,), WHOLE),
    "float": ((Real,), NUMBER),
    "float | None": ((Real, type(None)), f"{NUMBER}, or None"),
    "bool": ((bool, np.bool_), "True or False"),
    "str": ((str,), "a name"),
    "tuple[float, ...]": ((tuple, list), "numbers, from the finest level on"),
}
"""What a field of settings must be, by its annotation; others are arrays."""


def check_kinds(settings: Any) -> None:
    """Refuse settings, a dataclass, whose fields are of other types; arrays become NumPy's.

    Raises:
        WrongType: One is; the message says which.
        ValueError: A whole number does not fit into native code, or an array is none.
    """
    for part in fields(settings):
        value = getattr(settings, part.name)
        if part.type not in KINDS:
            object.__setattr__(settings, part.name, as_array(value, part.name))
            continue
        kind, give = KINDS[str(part.type)]
        need(value, kind, part.name, give)
        if give == WHOLE:
            _check_whole(part.name, value, 1 if part.name == "tile" else 0)
        elif isinstance(value, tuple | list):
            for number in value:
                need(number, Real, f"a number of {part.name}", NUMBER)


def threads_of(given: Any) -> int | None:
    """Return a number of threads; None for as many as the process may use.

    Raises:
        ValueError: It is no whole number.
    """
    if given is None:
        return None
    need(given, Integral, "threads", f"{WHOLE}, or None for all that the process may use")
    _check_whole("threads", given, 0)
    return int(given) or None


def check_sides(name: str, given: Any) -> tuple[int, int]:
    """Return height and width [px].

    Raises:
        ValueError: It is no pair of whole numbers above 0.
    """
    known = isinstance(given, Sequence) and len(given) == 2 and all(isinstance(x, Integral) for x in given)
    if not known or not all(0 < side <= MOST for side in given):
        said = given if isinstance(given, tuple | list) and len(given) < 5 else f"a {type(given).__name__}"
        raise WrongType(f"{name} is {said}; give height and width in pixels, whole numbers above 0")
    return int(given[0]), int(given[1])


def check_budget(budget: Any) -> None:
    """Refuse what is no share of the dense work.

    Raises:
        ValueError: It is no number above 0 and at most 1.
    """
    said = repr(budget) if budget is None or isinstance(budget, Real | str) else f"a {type(budget).__name__}"
    if not isinstance(budget, Real) or not 0 < float(budget) <= 1:
        raise ValueError(f"budget is {said}; it must be above 0 and at most 1, a share of the dense work")


def _check_whole(name: str, value: Any, least: int) -> None:
    if not least <= value <= MOST:
        raise ValueError(f"{name} is {value}; give a whole number of {least} to {MOST}")
