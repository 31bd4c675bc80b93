"""Score by the true benefit: the fall of the loss when a place is refined. It needs labels.

No policy can know this; it bounds what a policy could reach, and is never counted as one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.ops import halve
from foveal.policies.protocol import View
from foveal.storage.labels import VOID


@dataclass(frozen=True)
class Benefit:
    """Counterfactual benefit of every step from one level to the next finer.

    Attributes:
        network: Images to logits.
        target: Labels [N, H, W] of the images that are scored.
        max_level: Number of steps.
    """

    network: Callable[[Tensor], Tensor]
    target: Tensor
    max_level: int = 2

    @torch.no_grad()
    def __call__(self, view: View) -> tuple[Tensor, ...]:
        """Cross entropy [N, H, W] at a level minus that at the next finer one."""
        losses, image = [], view.image
        for _ in range(max(1, self.max_level) + 1):
            losses.append(self._loss(self.network(image)))
            image = halve(image)
        return tuple(coarse - fine for fine, coarse in pairwise(losses))

    def _loss(self, logits: Tensor) -> Tensor:
        logits = F.interpolate(logits, size=self.target.shape[1:], mode="bilinear", align_corners=False)
        return F.cross_entropy(logits, self.target.long(), ignore_index=VOID, reduction="none")
