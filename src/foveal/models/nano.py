"""A small residual encoder for CPU-scale studies and edge devices.

Source: own design from the basic blocks of He et al., CVPR 2016. Dense 3x3 convolutions only, because CPUs
run them close to their peak, and channels in multiples of 16, the width of a vector register.
"""

from __future__ import annotations

from torch import Tensor, nn

from foveal.models.resnet import BasicBlock

CHANNELS = (16, 32, 64, 112)
BLOCKS = (1, 1, 2)
"""Number of blocks at strides 8, 16 and 32."""


class NanoEncoder(nn.Module):
    """Two strided convolutions, then basic blocks at strides 8, 16 and 32: 2.3 GMAC at 1024x2048.

    Under a SwiftNet head of 48 channels that makes 6.2 GMAC, 6 % of SwiftNet with ResNet-18. Stride 4 has
    only the stem; most MACs go to the coarser strides, where each of them buys more context.

    Attributes:
        channels: Channels of every returned map, finest first.
        strides: Input pixels per sample of every returned map, finest first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_reduce(3, 16), _reduce(16, CHANNELS[0]))
        self.stages = nn.ModuleList()
        for incoming, width, count in zip(CHANNELS, CHANNELS[1:], BLOCKS, strict=False):
            rest = [BasicBlock(width, width, 1) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(BasicBlock(incoming, width, 2), *rest))
        self.channels = CHANNELS
        self.strides = (4, 8, 16, 32)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map [N, 3, H, W] to four maps [N, C, H / stride, W / stride], sides rounded up."""
        maps = [self.stem(image)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps


def _reduce(incoming: int, outgoing: int) -> nn.Sequential:
    convolution = nn.Conv2d(incoming, outgoing, 3, 2, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outgoing), nn.ReLU())
