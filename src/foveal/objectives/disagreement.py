"""How far an answer is from the dense network's: the share of pixels that differ, rare classes counting more.

No labels are needed: the dense answer is the reference, so this says what adapting costs, not what is right.
Where there are labels, `excess_error` says how much more of them is missed than the dense network misses.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foveal.storage.labels import VOID


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


def excess_error(labels: Tensor, dense_labels: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Class-balanced error beyond the dense network's, image by image, in [0, 1]; 0 where it is smaller.

    A pixel weighs as its true class; those without a label do not count. 0 for an image without any.

    Args:
        labels: Classes of the answer [N, H, W].
        dense_labels: Classes of the dense network's answer [N, H, W].
        target: True classes [N, H, W]; 255 where they are not known.
        weights: Weight of every class [K], as `class_weights` returns them.

    Returns:
        [N], in double precision.

    Raises:
        ValueError: The label maps differ in shape, or a true class has no weight.
    """
    if not labels.shape == dense_labels.shape == target.shape or labels.ndim != 3:
        raise ValueError(
            f"labels are {tuple(labels.shape)}, the dense ones {tuple(dense_labels.shape)} and the true ones "
            f"{tuple(target.shape)}; give three label maps [N, H, W] of one shape"
        )
    known = target != VOID
    wanted = target.long().masked_fill(~known, 0)
    largest = int(wanted.max()) if wanted.numel() else 0
    if largest >= len(weights):
        raise ValueError(
            f"the true labels hold class {largest} and there are weights for {len(weights)} classes; give "
            "labels of the classes that the network answers"
        )
    everything, missed, dense_missed = (
        _count(wanted, known & chosen, len(weights))
        for chosen in (known, labels != target, dense_labels != target)
    )
    weight = weights.to(wanted.device, torch.float64)
    beyond = ((missed - dense_missed) * weight).sum(1).clamp(min=0)
    return beyond / (everything * weight).sum(1).clamp(min=1e-12)


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
