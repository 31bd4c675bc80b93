"""Losses that train a policy network to choose the blocks at full resolution.

A block that is seen closely is rewarded for what it loses more than the average block, and for the budget
that is left: A = (L - mean L) + gamma * (target - share). Two estimates of its gradient follow.
Source: Verelst and Tuytelaars, "SegBlocks", TPAMI 2022, section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

GRADIENTS = ("reinforce", "expected")


@dataclass(frozen=True)
class PolicyLoss:
    """What a policy network minimises.

    Attributes:
        target: Share of the blocks that should be seen closely.
        gamma: Weight of that aim against the loss of the blocks.
        weight: Of the whole term beside the loss of the network.
        gradient: "reinforce", or "expected" for the same gradient with less noise.

    Raises:
        ValueError: No such gradient.
    """

    target: float = 0.4
    gamma: float = 10.0
    weight: float = 4.0
    gradient: str = "reinforce"

    def __post_init__(self) -> None:
        if self.gradient not in GRADIENTS:
            raise ValueError(f"gradient is '{self.gradient}'; give {' or '.join(GRADIENTS)}")

    def __call__(self, logits: Tensor, fine: Tensor, pixel_loss: Tensor, block: int) -> Tensor:
        """Return the loss of logits and draw [N, Bh, Bw], given the loss of every pixel [N, H, W]."""
        gain = advantage(block_means(pixel_loss.detach(), block), fine, self.target, self.gamma)
        if self.gradient == "expected":
            return self.weight * expected_gradient(logits, gain)
        return self.weight * reinforce(logits, fine, gain)


def block_means(values: Tensor, block: int) -> Tensor:
    """Average a map over blocks.

    Args:
        values: One value per pixel [N, H, W].
        block: Side of a block [px].

    Returns:
        [N, ceil(H / block), ceil(W / block)]; blocks that the edge cuts count their pixels in the image.
    """
    height, width = values.shape[1:]
    rim = (0, -width % block, 0, -height % block)
    inside = F.pad(torch.ones_like(values[:1]), rim)[:, None]
    sums, counts = (F.avg_pool2d(x, block)[:, 0] for x in (F.pad(values, rim)[:, None], inside))
    return sums / counts


def advantage(block_loss: Tensor, fine: Tensor, target: float, gamma: float) -> Tensor:
    """Compute the advantage of full resolution for every block.

    Args:
        block_loss: Loss per block [N, Bh, Bw], without gradient.
        fine: Which blocks ran at full resolution [N, Bh, Bw].
        target: Share of the blocks that should.
        gamma: Weight of the budget.

    Returns:
        [N, Bh, Bw]; positive where a block should be seen closely.
    """
    share = fine.to(block_loss).mean()
    return (block_loss - block_loss.mean() + gamma * (target - share)).detach()


def reinforce(logits: Tensor, fine: Tensor, advantages: Tensor) -> Tensor:
    """Score-function estimate: log-probability of what was drawn, times its reward.

    Args:
        logits: Of seeing a block closely [N, Bh, Bw].
        fine: What was drawn [N, Bh, Bw].
        advantages: From `advantage`; a coarse block gets the opposite reward.

    Source: Williams, "Simple statistical gradient-following algorithms", 1992.
    """
    chosen = fine.to(logits)
    log_probability = -F.binary_cross_entropy_with_logits(logits, chosen, reduction="none")
    return -(log_probability * (2 * chosen - 1) * advantages).mean()


def expected_gradient(logits: Tensor, advantages: Tensor) -> Tensor:
    """Expectation of `reinforce` over the block's own draw: same gradient, without the noise of the draw.

    The gradient of E[log p(g) s(g) A] is 2 A grad(p) where A does not depend on the block's own draw, which
    is how `reinforce` treats it as well.
    """
    return -2 * (logits.sigmoid() * advantages).mean()
