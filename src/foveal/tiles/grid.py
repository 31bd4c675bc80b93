"""Grids of images: plain tensors that remember whose parts they are, where images have several finest levels.

A grid of fixed sides [N, C, h, w] is a plain tensor, and layers work on it as on any other. Spread over a map
again, it becomes a map of other sides for images of another finest level; so it has to know the tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

GRID_RULES: dict[Any, Callable[..., Any]] = {}
"""Torch function -> what it means on a grid, given the function, the grid, and its arguments; None for the
usual."""


class Grid(Tensor):
    """A grid over every image of a batch.

    Attributes:
        source: Map in tiles that it was taken from.
    """

    source: Any

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Do what plain tensors do; the result is a grid over the same images."""
        if not all(issubclass(kind, Tensor) for kind in types):
            return NotImplemented  # beside tiles it is a plain tensor
        grid = next((a for a in args if isinstance(a, Grid)), None)
        if grid is not None and func in GRID_RULES:
            found = GRID_RULES[func](func, *args, **(kwargs or {}))
            if found is not None:
                return found
        found = super().__torch_function__(func, types, args, kwargs or {})
        if grid is not None and isinstance(found, Grid):
            found.source = grid.source
        return found


def as_grid(x: Tensor, source: Any) -> Grid:
    """Let a plain tensor [N, C, h, w] remember the tiles that it was taken from."""
    grid = x.as_subclass(Grid)
    grid.source = source
    return grid


def as_plain(value: Any) -> Any:
    """Give grids among arguments as the plain tensors that they are."""
    if isinstance(value, Grid):
        return Tensor.__torch_function__(Tensor.as_subclass, (Tensor,), (value, Tensor))
    return type(value)(map(as_plain, value)) if type(value) in (list, tuple) else value
