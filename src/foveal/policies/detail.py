"""Score by the detail that is lost when the image is reduced.

Source: the heuristic of Verelst and Tuytelaars, "SegBlocks: Towards Block-Based Adaptive Resolution Networks
for Fast Segmentation", ECCV workshops 2020: the difference between a block and its reduced version.
"""

from __future__ import annotations

from torch import Tensor

from foveal.ops import halve
from foveal.policies.protocol import View

STEPS = 3
"""Levels that the detail is measured for."""


def detail(view: View) -> tuple[Tensor, ...]:
    """Sum over the channels of the absolute difference, for every step from one level to the next finer."""
    maps, fine = [], view.image
    for _ in range(STEPS):
        coarse = halve(fine)
        again = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, : fine.shape[2], : fine.shape[3]]
        maps.append((fine - again).abs().sum(1))
        fine = coarse
    return tuple(maps)
