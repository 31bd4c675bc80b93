"""Layers that the networks of this folder share, with the names that published weights give their parts."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

CAMVID = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign_symbol",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
"""The 11 classes of CamVid, in the order of the weights."""


def convolution(
    incoming: int, outgoing: int, kernel: int, stride: int = 1, groups: int = 1, dilation: int = 1
) -> nn.Conv2d:
    """Make a convolution without bias that keeps ceil(side / stride) samples."""
    reach = dilation * (kernel - 1) // 2
    return nn.Conv2d(incoming, outgoing, kernel, stride, reach, dilation, groups, bias=False)


class Convolution(nn.Module):
    """A convolution and nothing else."""

    def __init__(self, *sizes: int, **more: int) -> None:
        super().__init__()
        self.conv = convolution(*sizes, **more)

    def forward(self, x: Any) -> Tensor:
        """Map [N, C, H, W] to [N, O, H / stride, W / stride]."""
        return self.conv(x)


class NormPReLU(nn.Module):
    """Batch normalisation and an activation with a slope per channel."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps)
        self.act = nn.PReLU(channels)

    def forward(self, x: Any) -> Tensor:
        """Map [N, C, H, W] to the same shape."""
        return self.act(self.bn(x))


class ConvolutionNorm(nn.Module):
    """A convolution and batch normalisation."""

    def __init__(self, *sizes: int, eps: float, **more: int) -> None:
        super().__init__()
        self.conv = convolution(*sizes, **more)
        self.bn = nn.BatchNorm2d(self.conv.out_channels, eps)

    def forward(self, x: Any) -> Tensor:
        """Map [N, C, H, W] to [N, O, H / stride, W / stride]."""
        return self.bn(self.conv(x))


class ConvolutionNormPReLU(ConvolutionNorm):
    """A convolution, batch normalisation, and an activation with a slope per channel."""

    def __init__(self, *sizes: int, eps: float, **more: int) -> None:
        super().__init__(*sizes, eps=eps, **more)
        self.act = nn.PReLU(self.conv.out_channels)

    def forward(self, x: Any) -> Tensor:
        """Map [N, C, H, W] to [N, O, H / stride, W / stride]."""
        return self.act(super().forward(x))


def halving() -> nn.AvgPool2d:
    """Average windows of 3 x 3 at every other sample; zeros around the map count."""
    return nn.AvgPool2d(3, 2, padding=1)
