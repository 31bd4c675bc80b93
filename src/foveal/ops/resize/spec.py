"""Resize a map to given sides; a sample is a mean of the samples around its place, weighted by a triangle.

A side of n samples becomes one of m. Output k has its middle at c = (k + 1/2) n / m, and sample i, whose
middle is i + 1/2, the weight max(0, 1 - |i + 1/2 - c| / s) with s = max(1, n / m), all weights of an output
divided by their sum: what PyTorch calls bilinear with antialias=True and align_corners=False.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Taps(NamedTuple):
    """Which samples of a side an output is a mean of.

    Attributes:
        first: First sample of every output [m], int32; `first + taps` lies within the side.
        weights: Of the samples from there on [taps, m].
    """

    first: Tensor
    weights: Tensor


def check(x: Tensor, size: tuple[int, int]) -> None:
    """Refuse what is no map, and sides that are none.

    Raises:
        ValueError: The map has other than four axes or is empty, or a side is below 1.
    """
    if x.ndim != 4 or not all(x.shape[2:]):
        raise ValueError(f"the map is {list(x.shape)}; give [N, C, H, W]")
    if min(size) < 1:
        raise ValueError(f"the map is to have {size[0]}x{size[1]} samples; give sides of at least 1")


def taps(side: int, outputs: int) -> Taps:
    """Return what the outputs of a side are means of, in double precision."""
    factor = side / outputs
    reach = max(1.0, factor)
    middle = (torch.arange(outputs, dtype=torch.float64) + 0.5) * factor
    lowest = (middle - reach + 0.5).floor().long().clamp(min=0)
    highest = (middle + reach + 0.5).floor().long().clamp(max=side)
    count = int((highest - lowest).max())
    first = torch.minimum(lowest, torch.tensor(side - count))
    places = first + torch.arange(count)[:, None]
    weights = (1 - (places + 0.5 - middle).abs() / reach).clamp(min=0)
    return Taps(first.int(), weights / weights.sum(0))
