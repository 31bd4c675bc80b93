"""Name the class of every pixel: enlarge the logits to the image and take the largest."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

MOST_CLASSES = 256
"""Labels are bytes."""


def check(logits: Tensor, size: tuple[int, int]) -> None:
    """Refuse logits that are none, or of more classes than a byte can name.

    Raises:
        ValueError: The logits are no maps with samples and 1 to 256 classes, or the size is below 1 px.
    """
    if logits.ndim != 4 or min(logits.shape[2:]) < 1:
        raise ValueError(f"the logits are {list(logits.shape)}; give [N, K, h, w] with samples")
    if not 0 < logits.shape[1] <= MOST_CLASSES:
        raise ValueError(
            f"the logits have {logits.shape[1]} classes; labels are bytes, give 1 to {MOST_CLASSES}"
        )
    if min(size) < 1:
        raise ValueError(f"the size is {size[0]}x{size[1]} px; give the sides of the image, at least 1 px")


def factor_of(shape: Sequence[int], size: tuple[int, int]) -> int:
    """Return the power of two that brings logits of a shape N, K, h, w to at least the image's size."""
    factor = max(-(-size[0] // shape[2]), -(-size[1] // shape[3]))
    return 1 << max(0, factor - 1).bit_length()


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring logits [N, K, h, w] to the size of the image, bilinearly by a whole factor, then crop."""
    factor = factor_of(logits.shape, size)
    if factor > 1:
        logits = F.interpolate(logits, scale_factor=factor, mode="bilinear", align_corners=False)
    return logits[:, :, : size[0], : size[1]]
