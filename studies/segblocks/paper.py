"""What several experiments take from the paper: its images and blocks, and a claim that it makes in words.

Source: Verelst and Tuytelaars, "SegBlocks", TPAMI 2022.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from foveal.cost import count_macs
from foveal.policies import PolicyNet

SIZE, BLOCK, CLASSES = (1024, 2048), 128, 19
"""Cityscapes: images [px], blocks [px], classes."""


@dataclass(frozen=True)
class Claim:
    """What the paper says in words, and where."""

    says: str
    source: str


TRAINING = (
    Claim(
        "reinforcement learning of the policy does not significantly change how many training steps are "
        "needed",
        "SegBlocks (TPAMI 2022), Fig. 11 and section 4.4, in words: the figure has no numbers",
    ),
)


def policy_gmacs(width: int, depth: int) -> float:
    """Count a policy network for the paper's images and blocks [GMAC]; nothing is computed."""
    with torch.device("meta"):
        net, image = PolicyNet(BLOCK, width, depth).eval(), torch.empty(1, 3, *SIZE)
        return count_macs(lambda: net(image)).total / 1e9
