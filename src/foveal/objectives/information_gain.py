"""What computing a place again told: how far the new answer is from the one that was kept.

A policy that decides what to compute in a video learns from it without labels. The interface is `Reward`: a
map that is large where a place was worth computing. For another task (boxes, keypoints) another function of
the old and the new answer takes its place.
Source: Verelst and Tuytelaars, "BlockCopy", ICCV 2021, section 3.2.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

REDUCED = 4
"""Samples of the answer on the side of one sample of the gain."""


class Reward(Protocol):
    """Says how much the answers of the next frame tell that those of the last one did not."""

    def __call__(self, before: Tensor, after: Tensor) -> Tensor:
        """Return the gain [N, h, w], 0 where the answer is the same, from two answers [N, K, H, W]."""


def segmentation_gain(before: Tensor, after: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the new class probabilities from the kept ones, averaged over classes.

    Args:
        before: Logits that were kept [N, K, H, W].
        after: Logits of the new frame [N, K, H, W].

    Returns:
        The gain [N, H / 4, W / 4], sides rounded up [nat].
    """
    old, new = (_reduced(logits.detach().float()).log_softmax(1) for logits in (before, after))
    return F.kl_div(old, new, reduction="none", log_target=True).mean(1)


def block_maxima(values: Tensor, size: tuple[int, int], block: int) -> Tensor:
    """Return the largest value of every block.

    Args:
        values: A map of the images [N, h, w] at any stride.
        size: Height and width of the images [px].
        block: Side of a block [px].

    Returns:
        [N, ceil(H / block), ceil(W / block)]; a sample belongs to the block that holds its middle, and a
        block without samples gets 0.
    """
    rows, columns = (
        ((torch.arange(n, device=values.device) + 0.5) * side / n / block).long()
        for n, side in zip(values.shape[1:], size, strict=True)
    )
    high, wide = (-(-side // block) for side in size)
    place = (rows[:, None] * wide + columns).flatten().expand(len(values), -1)
    found = torch.zeros(len(values), high * wide, dtype=values.dtype, device=values.device)
    return found.scatter_reduce(1, place, values.flatten(1), "amax", include_self=False).view(-1, high, wide)


def signed_square(target: Tensor, spent: Tensor) -> Tensor:
    """Return (target - spent) |target - spent|: what a computed block earns for work that is left."""
    left = target - spent
    return left * left.abs()


def _reduced(logits: Tensor) -> Tensor:
    return F.avg_pool2d(logits, REDUCED, ceil_mode=True, count_include_pad=False)
