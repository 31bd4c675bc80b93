"""One answer of two networks: whose counts where, as it is, by its entropy, or by a trained gate.

They are joined as log probabilities: logits of two networks have no common scale.

Source: Liu et al., "SparseRefine", ECCV 2024: the gated ensemble of a coarse and a refined answer, and the
lower entropy as the way without training.
Differs: the two weighted answers are added as they are, without a further network on their sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.ops import upsample
from foveal.storage.schema import MOST_CLASSES

WIDEST = 1024
FUSIONS = {
    "replace": "the second answer",
    "sharper": "the one of the lower entropy",
    "gated": "both, as a gate that was trained weighs them",
}
"""Whose answer a place gets that both networks saw."""
BEGIN = -2.0, 2.0
"""Bias of the weights of a new gate: it takes the second answer nearly alone."""


class AnswerGate(nn.Module):
    """Weighs two answers, place by place, by their probabilities and entropies: 2 (K + 1) -> width -> 2.

    Args:
        classes: Number of classes K.
        width: Channels of the hidden layer; the paper has 64.

    Raises:
        ValueError: There are no classes, or no channels.
    """

    def __init__(self, classes: int, width: int = 64) -> None:
        super().__init__()
        if not 1 <= classes <= MOST_CLASSES or not 1 <= width <= WIDEST:
            raise ValueError(
                f"a gate of {classes} classes and width {width} cannot be; give 1 to {MOST_CLASSES} classes "
                f"and a width of 1 to {WIDEST}"
            )
        self.classes, self.width = classes, width
        self.hidden = nn.Conv2d(2 * (classes + 1), width, 1)
        self.weigh = nn.Conv2d(width, 2, 1, bias=False)
        self.bias = nn.Parameter(torch.tensor(BEGIN).view(1, 2, 1, 1))

    @property
    def config(self) -> dict[str, int]:
        """Arguments that make such a gate."""
        return {"classes": self.classes, "width": self.width}

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Weigh two answers, log probabilities [N, K, h, w]; return the weighted sum, normalised."""
        seen = torch.cat([first.exp(), second.exp(), entropy_of(first), entropy_of(second)], 1)
        weight = (self.weigh(self.hidden(seen).relu()) + self.bias).softmax(1)
        mixed: Tensor = weight[:, :1] * first + weight[:, 1:] * second
        return mixed.log_softmax(1)


def entropy_of(log: Tensor) -> Tensor:
    """Entropy [N, 1, h, w] of log probabilities [N, K, h, w] [nat]."""
    return -(log.exp() * log).sum(1, keepdim=True)


@dataclass(frozen=True)
class Joining:
    """How one answer is made of two.

    Attributes:
        fusion: Whose answer counts where both are, one of `FUSIONS`.
        feather: Reach around the cells of the second answer over which it fades [px]; 0 for hard edges.
    """

    fusion: str = "replace"
    feather: int = 0

    def __call__(
        self,
        first: Tensor,
        second: Tensor,
        cells: Tensor,
        tile: int,
        size: tuple[int, int],
        gate: AnswerGate | None = None,
    ) -> Tensor:
        """Make one answer of two, at the finer grid of both.

        Args:
            first: Logits everywhere [N, K, h, w].
            second: Logits [N, K, h', w'] of the cells that have it, and as far around as it fades.
            cells: Cells of the second answer [N, Gh, Gw], bool.
            tile: Side of a cell [px].
            size: Height and width of the images [px].
            gate: For "gated".

        Returns:
            Log probabilities [N, K, h, w]: where only one answer is, those of that one, bit by bit.

        Raises:
            ValueError: The answers are of different numbers of classes.
        """
        if first.shape[1] != second.shape[1]:
            raise ValueError(
                f"the small network has {first.shape[1]} classes and the large network {second.shape[1]}; "
                "give two for the same classes"
            )
        rows, columns = max(first.shape[2], second.shape[2]), max(first.shape[3], second.shape[3])
        stride = 1 << (max(-(-size[0] // rows), -(-size[1] // columns)) - 1).bit_length()
        share = spread_cells(cells, max(1, tile // stride), (rows, columns))[:, None].to(first)
        share = _feathered(share, self.feather // stride)
        first, second = (upsample(x.log_softmax(1), (rows, columns)) for x in (first, second))
        second = self._fused(first, torch.where(share > 0, second, first), gate)
        between = (share > 0) & (share < 1)
        if bool(between.any()):
            part = share.clamp(1e-6, 1 - 1e-6)
            second = torch.where(
                between, torch.logaddexp(first + (-part).log1p(), second + part.log()), second
            )
        return torch.where(share > 0, second, first)

    def _fused(self, first: Tensor, second: Tensor, gate: AnswerGate | None) -> Tensor:
        if self.fusion == "sharper":
            return torch.where(entropy_of(second) < entropy_of(first), second, first)
        if self.fusion == "gated" and gate is not None:
            fused: Tensor = gate(first, second)
            return fused
        return second


def spread_cells(cells: Tensor, side: int, size: tuple[int, int]) -> Tensor:
    """Repeat cells [N, Gh, Gw] over squares of `side`, cut to a size."""
    return cells.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, : size[0], : size[1]]


def _feathered(inside: Tensor, reach: int) -> Tensor:
    """Let a mask [N, 1, h, w] of 0 and 1 fall to 0 over `reach` samples, by the larger of both distances."""
    share = reached = inside
    for step in range(1, reach):
        reached = F.max_pool2d(reached, 3, 1, 1)
        share = torch.maximum(share, reached * (1 - step / reach))
    return share
