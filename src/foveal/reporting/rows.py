"""Rows as JSON: results are frozen dataclasses, and their fields in order are the keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any


def as_json(value: Any) -> Any:
    """Return rows, alone or within lists and mappings, as plain values for `json.dumps`.

    A field of a dataclass that has the default None is left out while it is None: such a figure was not asked
    for. Every other field is always there, None as null. Tuples become lists, paths strings.
    """
    if is_dataclass(value) and not isinstance(value, type):
        found = ((field, getattr(value, field.name)) for field in fields(value))
        return {
            field.name: as_json(item) for field, item in found if not (item is None and field.default is None)
        }
    if isinstance(value, Mapping):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return str(value) if isinstance(value, Path) else value
