"""Cross entropy for segmentation: class-balanced, and on the hardest pixels only."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.storage.labels import VOID


def cross_entropy(
    logits: Tensor, target: Tensor, weight: Tensor | None = None, hardest: float = 1.0
) -> Tensor:
    """Mean cross entropy over labelled pixels.

    Args:
        logits: [N, K, h, w], brought to the size of the labels bilinearly.
        target: Labels [N, H, W], bytes or whole numbers; 255 is ignored.
        weight: Weight of every class [K].
        hardest: Share of the pixels, those with the largest loss, that count ("bootstrapped").

    Source: bootstrapping as in Pohlen et al., "Full-Resolution Residual Networks", CVPR 2017, section 3.3.
    """
    target = target.long()
    loss = pixel_cross_entropy(logits, target, weight)
    labelled = target != VOID
    norm = labelled.float() if weight is None else weight[target.clamp(max=len(weight) - 1)] * labelled
    if hardest < 1.0:
        count = max(1, int(hardest * int(labelled.sum())))
        chosen = loss.flatten().topk(count).indices
        return loss.flatten()[chosen].sum() / norm.flatten()[chosen].sum().clamp(min=1e-6)
    return loss.sum() / norm.sum().clamp(min=1e-6)


def pixel_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Cross entropy of every pixel [N, H, W], 0 where the label is void; arguments as in `cross_entropy`."""
    logits = F.interpolate(logits.float(), size=target.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(logits, target.long(), weight, ignore_index=VOID, reduction="none")


def divergence(logits: Tensor, teacher: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence of class probabilities from a teacher's, both logits [N, K, h, w].

    Source: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, temperature 1.
    """
    log, goal = logits.float().log_softmax(1), teacher.float().log_softmax(1)
    return (goal.exp() * (goal - log)).sum(1).mean()


def filtered_divergence(logits: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    """Mean divergence from a teacher's class probabilities over the labelled pixels that it has right.

    Args:
        logits: [N, K, h, w], brought to the size of the labels bilinearly, as the teacher's are.
        teacher: Logits of the teacher.
        target: Labels [N, H, W], bytes or whole numbers; 255 is ignored.

    Source: positive filtering distillation, Kouris et al., "Multi-Exit Semantic Segmentation Networks",
    ECCV 2022.
    """
    size = target.shape[-2:]
    ours, theirs = (F.interpolate(x.float(), size=size, mode="bilinear") for x in (logits, teacher))
    log, goal = ours.log_softmax(1), theirs.log_softmax(1)
    labelled = target.long() != VOID
    right = labelled & (theirs.argmax(1) == target.long())
    return ((goal.exp() * (goal - log)).sum(1) * right).sum() / labelled.sum().clamp(min=1)


def balanced_weights(shares: Tensor, power: float = 0.5) -> Tensor:
    """Weights [K] that grow as classes get rarer: (median share / share) ^ power.

    Args:
        shares: Share of the pixels per class [K]; a class that does not occur weighs 0.
        power: 0 counts pixels, 1 counts classes.

    Source: median frequency balancing, Eigen and Fergus, ICCV 2015, section 6.3.2 (power 1).
    """
    present = shares > 0
    if not present.any():
        return torch.ones_like(shares)
    median = shares[present].median()
    weights = torch.where(present, (median / shares.clamp(min=1e-8)) ** power, torch.zeros_like(shares))
    return weights / weights[present].mean().clamp(min=1e-8)
