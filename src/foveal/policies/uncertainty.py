"""Scores by the uncertainty of the network's own coarse answer."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.policies.protocol import View

AROUND = 48
"""Reach of a regional score [px]."""
LEAST_SHARE = 1e-4
"""Of a class, so that one which is hardly there does not outweigh all others."""


def entropy(view: View) -> Tensor:
    """Entropy of the class probabilities of the coarse answer [nat]."""
    log = _logits(view).log_softmax(1)
    return -(log.exp() * log).sum(1)


def margin(view: View) -> Tensor:
    """One minus the distance between the two largest probabilities of the coarse answer."""
    logits = _logits(view)
    top = logits.softmax(1).topk(min(2, logits.shape[1]), 1).values
    return 1 - (top[:, 0] - top[:, -1])


def logit_margin(view: View) -> Tensor:
    """Exponential of the second largest logit minus the largest: their ratio of probabilities, 1 at most.

    Source: the uncertainty of Kirillov et al., "PointRend", CVPR 2020, section 3.1; the exponential keeps its
    order, and makes it a gain that can be summed over places.
    """
    logits = _logits(view)
    top = logits.topk(min(2, logits.shape[1]), 1).values
    return (top[:, -1] - top[:, 0]).exp()


def rarity(share: Tensor) -> Tensor:
    """Return the weights of classes [..., K, ...] by their shares of the image: 1 where all have the same.

    Args:
        share: Shares of the classes, along axis 1, or 0 of a vector.
    """
    classes = share.shape[min(1, share.ndim - 1)]
    return (1 / classes / share.clamp(min=LEAST_SHARE)).sqrt()


def weighted_entropy(view: View) -> Tensor:
    """Entropy, weighted by how rare the probable classes are in the coarse answer of the same image.

    mIoU counts classes, not pixels: an uncertain pixel of a rare class counts more.
    """
    probability = _logits(view).softmax(1)
    share = probability.mean((2, 3), keepdim=True)
    return entropy(view) * (probability * rarity(share)).sum(1)


def regional_entropy(view: View) -> Tensor:
    """Class-weighted entropy, averaged over what lies within `AROUND` pixels.

    Refined places are then compact, and a refined tile has fewer coarse neighbours, which it has to borrow
    its border from.
    """
    uncertain = weighted_entropy(view)
    stride = max(1, round(view.size[0] / uncertain.shape[1]))
    reach = max(1, AROUND // stride)
    # One side after the other: the window is a rectangle at the edges too, so the means are the same.
    for window, border in (((2 * reach + 1, 1), (reach, 0)), ((1, 2 * reach + 1), (0, reach))):
        uncertain = F.avg_pool2d(uncertain[:, None], window, 1, border, count_include_pad=False)[:, 0]
    return uncertain


def _logits(view: View) -> Tensor:
    if view.logits is None:
        raise ValueError("a score by uncertainty needs the logits of a coarse pass; give coarse_level=1 or 2")
    return torch.as_tensor(view.logits).float()
