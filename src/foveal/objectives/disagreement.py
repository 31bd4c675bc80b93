"""How far an answer is from the dense network's: the share of pixels that differ, rare classes counting more.

No labels are needed: the dense answer is the reference, so this says what adapting costs, not what is right.
"""

from __future__ import annotations

import torch
from torch import Tensor


def disagreement(labels: Tensor, dense_labels: Tensor, weights: Tensor) -> Tensor:
    """Class-balanced disagreement with the dense network, image by image, in [0, 1].

    The weight of the pixels that differ over the weight of all pixels; a pixel weighs as its class in the
    dense answer. Pixels are counted per class first, so the result does not depend on their order.

    Args:
        labels: Classes of the answer [N, H, W].
        dense_labels: Classes of the dense network's answer [N, H, W].
        weights: Weight of every class [K], as `class_weights` returns them.

    Returns:
        [N], in double precision.

    Raises:
        ValueError: The label maps differ in shape, or the dense answer has a class without a weight.
    """
    if labels.shape != dense_labels.shape or labels.ndim != 3:
        raise ValueError(
            f"labels are {tuple(labels.shape)} and the dense labels {tuple(dense_labels.shape)}; give two "
            "label maps [N, H, W] of one shape"
        )
    largest = int(dense_labels.max()) if dense_labels.numel() else 0
    if largest >= len(weights):
        raise ValueError(
            f"the dense labels hold class {largest} and there are weights for {len(weights)} classes; give "
            "the classes that the dense network answers, without void, and one weight for each"
        )
    wanted = dense_labels.long()
    everything = _count(wanted, torch.ones_like(wanted, dtype=torch.bool), len(weights))
    wrong = _count(wanted, labels != dense_labels, len(weights))
    weight = weights.to(wanted.device, torch.float64)
    return (wrong * weight).sum(1) / (everything * weight).sum(1).clamp(min=1e-12)


def class_weights(counts: Tensor, power: float = 0.5) -> Tensor:
    """Weights [K] that grow as classes get rarer in the dense network's answers, 1 for a pixel on average.

    A class that never occurs weighs as much as the rarest one that does.

    Args:
        counts: Pixels per class [K] in the dense network's answers on the calibration images.
        power: 0 counts pixels, 1 counts classes.

    Raises:
        ValueError: A count is negative.
    """
    if counts.numel() and float(counts.min()) < 0:
        raise ValueError(f"counts hold {float(counts.min()):g}; give the pixels per class, at least 0 each")
    present = counts > 0
    if not present.any():
        return torch.ones_like(counts, dtype=torch.float32)
    share = counts.double() / counts.sum()
    weights = share.where(present, share[present].min()) ** -power
    return (weights / (share * weights).sum()).float()


def _count(classes: Tensor, chosen: Tensor, number: int) -> Tensor:
    """Count the chosen pixels of every image and class: [N, K]."""
    images = len(classes)
    offset = number * torch.arange(images, device=classes.device).view(-1, 1, 1)
    return torch.bincount((classes + offset)[chosen], minlength=images * number).view(images, number)
