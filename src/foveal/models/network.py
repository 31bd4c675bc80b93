"""An ordinary segmentation network: normalise, encode, decode."""

from __future__ import annotations

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class SegmentationNetwork(nn.Module):
    """Encoder and head for RGB images in 0..1.

    Args:
        encoder: Module that returns a list of maps, with `channels` and `strides`, finest first.
        head: Module from that list to logits at the finest stride.
        mean: Mean of the images the encoder was trained on, per channel.
        std: Their deviation.

    Attributes:
        classes: Number of classes K.
        stride: Input pixels per logit sample.
        dense_modules: Names of the submodules that look at the whole map at once.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module,
        classes: int,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.classes = classes
        self.stride: int = encoder.strides[0]  # type: ignore[index, assignment]
        self.coarsest_stride: int = encoder.strides[-1]  # type: ignore[index, assignment]
        self.dense_modules: tuple[str, ...] = ("head.context",)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Map images [N, 3, H, W] in 0..1 to logits [N, K, H / stride, W / stride], sides rounded up."""
        return self.head(self.encoder((image - self.mean) / self.std))
