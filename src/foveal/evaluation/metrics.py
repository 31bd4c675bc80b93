"""Quality of a segmentation: one confusion matrix per data set, and the F score of boundaries."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.objectives.confusion import Confusion as Confusion
from foveal.storage.labels import VOID


class BoundaryScore:
    """F score of class boundaries: predicted ones near true ones and the other way round.

    Args:
        tolerance: Distance that still counts as near, in rows or columns [px].

    Source: the boundary measure of Csurka et al., "What is a good evaluation measure for semantic
    segmentation?", BMVC 2013, section 2.2, summed over a data set and over classes.
    """

    def __init__(self, tolerance: int = 3) -> None:
        self.tolerance = tolerance
        self.sums = torch.zeros(4, dtype=torch.int64)

    def add(self, predicted: Tensor, target: Tensor) -> None:
        """Count the boundary pixels of label maps [N, H, W]."""
        void = _grow((target == VOID), self.tolerance)
        ours, true = _boundary(predicted) & ~void, _boundary(target) & ~void
        near_true, near_ours = _grow(true, self.tolerance), _grow(ours, self.tolerance)
        hits = (ours & near_true, ours, true & near_ours, true)
        self.sums += torch.tensor([int(mask.sum()) for mask in hits])

    @property
    def score(self) -> float:
        """F score; NaN if neither the predictions nor the labels have a boundary outside of void."""
        if not int(self.sums[1] + self.sums[3]):
            return math.nan
        precision, recall = (float(self.sums[k] / self.sums[k + 1].clamp(min=1)) for k in (0, 2))
        return 2 * precision * recall / max(precision + recall, 1e-12)


def _boundary(labels: Tensor) -> Tensor:
    """Mark pixels whose right or lower neighbour has another label."""
    labels = labels.long()
    right = F.pad(labels[..., 1:] != labels[..., :-1], (0, 1))
    below = F.pad(labels[..., 1:, :] != labels[..., :-1, :], (0, 0, 0, 1))
    return right | below


def _grow(mask: Tensor, width: int) -> Tensor:
    return F.max_pool2d(mask[:, None].float(), 2 * width + 1, 1, width)[:, 0] > 0
