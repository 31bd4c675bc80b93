"""Reduce a map: every sample is the mean of 2 x 2 samples, of those that exist at an odd edge."""

from __future__ import annotations

from torch import Tensor


def check(x: Tensor) -> None:
    """Refuse what is no map.

    Raises:
        ValueError: The map has other than four axes.
    """
    if x.ndim != 4:
        raise ValueError(f"the map is {list(x.shape)}; give [N, C, H, W]")
