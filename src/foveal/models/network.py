"""An ordinary segmentation network: normalise, encode, decode."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class SegmentationNetwork(nn.Module):
    """Encoder and head for images in 0..1, RGB unless `with_channels` changed that.

    Args:
        encoder: Module that returns a list of maps, with `channels` and `strides`, finest first.
        head: Module from that list to logits at the finest stride.
        mean: Mean of the images the encoder was trained on, per channel.
        std: Their deviation.

    Attributes:
        classes: Number of classes K.
        in_channels: Channels of the images.
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
        self.in_channels = len(mean)
        self.stride: int = encoder.strides[0]  # type: ignore[index, assignment]
        self.coarsest_stride: int = encoder.strides[-1]  # type: ignore[index, assignment]
        self.dense_modules: tuple[str, ...] = ("head.context",)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Map images [N, C, H, W] in 0..1 to logits [N, K, H / stride, W / stride], sides rounded up."""
        return self.head(self.encoder((image - self.mean) / self.std))


def with_channels(network: SegmentationNetwork, channels: int) -> SegmentationNetwork:
    """Let a network take images of other channels: a fresh first convolution, and one mean and deviation."""
    name, first = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
    made = copy.deepcopy(first)
    made.in_channels = channels
    made.weight = nn.Parameter(first.weight.new_empty(len(first.weight), channels, *first.kernel_size))
    made.reset_parameters()
    network.set_submodule(name, made)
    network.in_channels = channels
    for each in ("mean", "std"):
        value = getattr(network, each).mean(1, keepdim=True).repeat(1, channels, 1, 1)
        network.register_buffer(each, value, persistent=False)
    return network
