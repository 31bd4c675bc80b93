"""Choose tiles that gain much and lie together: `geometry/compact.py` says which those are."""

from __future__ import annotations

from torch import Tensor


def check(values: Tensor, is_open: Tensor, isolated: float, count: int) -> None:
    """Refuse what is no choice.

    Raises:
        ValueError: The maps have other than two axes or differ in shape, or the share or the count is none.
    """
    if values.ndim != 2 or values.shape != is_open.shape:
        raise ValueError(
            f"values are {list(values.shape)} and open tiles {list(is_open.shape)}; give two maps "
            "[rows, columns] of one shape"
        )
    if not 0 <= isolated <= 1 or count < 0:
        raise ValueError(
            f"the isolated gain is {isolated:g} and the count {count}; give a share between 0 and 1, and a "
            "count of 0 or more"
        )
