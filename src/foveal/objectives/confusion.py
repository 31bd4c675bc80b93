"""Quality of a segmentation from counts of true and predicted classes."""

from __future__ import annotations

import torch
from torch import Tensor

from foveal.storage.labels import VOID


class Confusion:
    """Counts of (true class, predicted class) over a whole data set, void ignored.

    Attributes:
        counts: [K, K], rows are true classes.
    """

    def __init__(self, classes: int) -> None:
        self.counts = torch.zeros(classes, classes, dtype=torch.int64)

    def add(self, predicted: Tensor, target: Tensor) -> None:
        """Count the pixels of label maps [..., H, W] of one shape."""
        known = target != VOID
        classes = len(self.counts)
        pairs = target[known].long() * classes + predicted[known].long()
        self.counts += torch.bincount(pairs, minlength=classes**2).view(classes, classes)

    @property
    def iou(self) -> Tensor:
        """Intersection over union per class [K]; NaN for a class that neither occurs nor is predicted."""
        hit = self.counts.diag().double()
        return hit / (self.counts.sum(0) + self.counts.sum(1) - hit)

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur in the labels; NaN if none does."""
        return float(self.iou[self.counts.sum(1) > 0].mean())

    @property
    def accuracy(self) -> float:
        """Share of the labelled pixels that are right; NaN if none is labelled."""
        return float(self.counts.diag().sum() / self.counts.sum())
