"""How uncertain a coarse answer is, block by block, so that it adds up to what the whole image would have.

A score by the rarity of classes weighs with shares of the whole image, which no block knows. It is a sum over
classes, so a block keeps the sum for every class, and the weights come in when all blocks are there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foveal.policies import POLICIES, View
from foveal.policies.budgeted import per_cell
from foveal.policies.uncertainty import entropy, rarity
from foveal.storage.names import find

WEIGHTED = "weighted_entropy"


class Uncertainty:
    """A score of `foveal policies` for images that come in blocks.

    Args:
        policy: Name of the policy.

    Raises:
        ValueError: There is no such policy, it does not go by the network's own answer, or looks beyond a
            block.
    """

    def __init__(self, policy: str) -> None:
        entry = find(policy, POLICIES, "policy")
        self.policy, self._score = policy, entry.score
        if not entry.needs_pass or entry.score is None or policy == "regional_entropy":
            able = ", ".join(k for k, e in POLICIES.items() if e.needs_pass and k != "regional_entropy")
            raise ValueError(
                f"large images are refined by the answer of every place itself: {able}; given {policy}"
            )

    def maps(self, logits: Tensor, size: tuple[int, int], tile: int) -> Tensor:
        """Return the parts of the score per cell [M, Gh, Gw] of an answer [1, K, h, w].

        Args:
            logits: The answer, at the network's stride at full resolution.
            size: Height and width of what they are of, at full resolution [px].
            tile: Side of a cell there [px].
        """
        view = View(torch.empty(1, 1, *size, device="meta"), logits=logits)
        if self.policy != WEIGHTED:
            assert self._score is not None, "was checked"
            found = self._score(view)
            return per_cell(found if isinstance(found, Tensor) else found[0], size, tile)
        doubt, probability = entropy(view), logits.softmax(1)
        return torch.cat([per_cell(doubt * probability[:, k], size, tile) for k in range(logits.shape[1])])

    def shares(self, logits: Tensor, weight: Tensor) -> Tensor:
        """Sum the probabilities of every class [K] over the samples [h, w] that have a weight."""
        return (logits.softmax(1)[0].double() * weight.double()).sum((1, 2))

    def gains(self, maps: Tensor, shares: Tensor) -> Tensor:
        """Return the score per cell [Gh, Gw] from its parts and the classes' shares of the whole image."""
        if self.policy != WEIGHTED:
            return maps[0].double()
        weights = rarity(shares / max(float(shares.sum()), 1e-12))
        return (maps.double() * weights[:, None, None]).sum(0)
