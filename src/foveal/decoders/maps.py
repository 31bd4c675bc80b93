"""What decoders read: two maps of a network, and the coarse answer that is made of the coarser one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

Score = Callable[[Tensor, int], Tensor]
"""Score per place [N, h, w], from an answer [N, K, h', w'] and the side of a place [px]; the highest win."""


@dataclass(frozen=True)
class Maps:
    """Maps of some images.

    Attributes:
        fine: Map at the stride of the answer [N, C, h, w].
        coarse: Map at the end of the encoder [N, C', hc, wc].
        logits: Coarse answer [N, K, hc, wc].
        ratio: Fine samples on the side of a coarse one.
        stride: Pixels of the image on the side of a fine sample.

    Raises:
        ValueError: Coarse samples do not cover the fine map.
    """

    fine: Tensor
    coarse: Tensor
    logits: Tensor
    ratio: int
    stride: int

    def __post_init__(self) -> None:
        fine, coarse = self.fine.shape[2:], self.coarse.shape[2:]
        if any(-(-few // self.ratio) != count for few, count in zip(fine, coarse, strict=True)):
            raise ValueError(
                f"the fine map is {fine[0]}x{fine[1]} and the coarse one {coarse[0]}x{coarse[1]}, which is "
                f"not a {self.ratio}th of it; give sides that are multiples of {self.ratio * self.stride} px"
            )

    def sides(self, factor: int) -> tuple[int, int]:
        """Return the sides of a map that is coarser than the fine one by a factor."""
        return -(-self.fine.shape[2] // factor), -(-self.fine.shape[3] // factor)

    def enlarged(self, factor: int) -> Tensor:
        """Return the coarse answer at `factor` times the stride of the fine map [N, K, h', w']."""
        return enlarge(self.logits, self.ratio // factor, self.sides(factor))


def enlarge(logits: Tensor, factor: int, sides: tuple[int, int]) -> Tensor:
    """Enlarge logits bilinearly by exactly a factor, and crop them to the sides of a map."""
    if factor > 1:
        logits = F.interpolate(logits, scale_factor=factor, mode="bilinear", align_corners=False)
    return logits[:, :, : sides[0], : sides[1]]


def highest(scores: Tensor, count: int) -> Tensor:
    """Return the places of highest score per image [N, count], by their numbers, of scores [N, h, w]."""
    return scores.flatten(1).topk(count, dim=1, sorted=False).indices
