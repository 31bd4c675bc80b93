"""Plans and masks by cell, as native code reads them; checked, since it would write beyond its tiles."""

from __future__ import annotations

from typing import Any

import numpy as np

from foveal.program.images import as_array

Array = np.ndarray[Any, Any]


def checked_cells(name: str, values: Any, cells: tuple[int, ...], kind: type) -> Array:
    """Return a plan or a mask as native code reads it.

    Raises:
        ValueError: It is no array, has other cells, or is a plan that is no quadtree.
    """
    values = as_array(values, name)
    if tuple(values.shape) != cells:
        raise ValueError(f"{name} is {list(values.shape)}; these images have cells {list(cells)}")
    if kind is np.int8:
        _check_levels(name, values)
    array: Array = np.ascontiguousarray(values, dtype=kind)
    if kind is np.int8:
        _check_plan(array)
    return array


def _check_levels(name: str, levels: Array) -> None:
    """Refuse numbers that would be other ones as int8."""
    if levels.dtype.kind not in "ui":
        raise ValueError(f"{name} is {levels.dtype}; give whole numbers from -1 (skip) to 7")
    if levels.min() < -1 or levels.max() > 7:
        raise ValueError(f"levels are {levels.min()} to {levels.max()}; a program has -1 (skip) to 7")


def _check_plan(levels: Array) -> None:
    """Refuse levels that are no quadtree: native code would write beyond its tiles."""
    rows, columns = np.indices(levels.shape[1:])
    side = 1 << np.maximum(levels, 0).astype(np.int64)
    first = levels[np.arange(len(levels))[:, None, None], rows - rows % side, columns - columns % side]
    counts = {level: int((levels == level).sum()) for level in range(1, int(levels.max()) + 1)}
    covered = {level: _covered(levels, level) for level in counts}
    if (first != levels).any() or counts != covered:
        raise ValueError("levels are no quadtree: a level-l tile covers an aligned square of 2^l x 2^l cells")


def _covered(levels: Array, level: int) -> int:
    """Count the cells in the squares whose first cell has a level."""
    side = 1 << level
    images, rows, columns = (levels[:, ::side, ::side] == level).nonzero()
    tall = np.minimum(side, levels.shape[1] - rows * side)
    wide = np.minimum(side, levels.shape[2] - columns * side)
    return int((tall * wide).sum()) if len(images) else 0
