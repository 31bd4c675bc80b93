"""Rows of experiments as keys of JSON and columns of tables: the fields of frozen dataclasses, in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

KEY, PRINTED, BY = "key", "printed", "by target"
HIDDEN: Mapping[str, object] = {PRINTED: False}
"""Metadata of a field that tables leave out."""
BY_TARGET: Mapping[str, object] = {BY: True}
"""Metadata of a field that holds a dataclass by target; the fields of that have keys NAME_TARGET."""


def stored_as(key: str) -> Mapping[str, object]:
    """Return the metadata of a field whose key is another than its name, which Python would not allow."""
    return {KEY: key}


def as_keys(row: DataclassInstance) -> dict[str, Any]:
    """Return a row as it is stored: plain values by key."""
    return dict(_items(row, printed=False))


def as_columns(row: DataclassInstance) -> dict[str, Any]:
    """Return what tables show of a row."""
    return dict(_items(row, printed=True))


def _items(row: DataclassInstance, printed: bool) -> Iterator[tuple[str, Any]]:
    values = asdict(row)
    for item in fields(row):
        if printed and not item.metadata.get(PRINTED, True):
            continue
        if item.metadata.get(BY):
            yield from _spread(values[item.name])
        else:
            yield item.metadata.get(KEY, item.name), values[item.name]


def _spread(found: Mapping[float, Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    for target, values in found.items():
        for name, value in values.items():
            yield f"{name}_{target:g}", value
