"""What modules take and return: tensors, in lists, tuples and mappings of any depth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch


def map_leaves(change: Callable[[Any], Any], value: Any) -> Any:
    """Return the same structure with every leaf changed."""
    if isinstance(value, Mapping):
        return type(value)((key, map_leaves(change, item)) for key, item in value.items())  # type: ignore[call-arg]
    if isinstance(value, list | tuple) and not isinstance(value, torch.Size):
        parts = [map_leaves(change, item) for item in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return change(value)


def leaves(value: Any) -> list[Any]:
    """List the leaves in order; what is no list, tuple or mapping is one."""
    if isinstance(value, Mapping):
        return [leaf for item in value.values() for leaf in leaves(item)]
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]
