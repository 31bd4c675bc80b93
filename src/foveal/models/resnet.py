"""ResNet encoders (He et al., CVPR 2016), with the parameter names of torchvision.

Source: "Deep Residual Learning for Image Recognition", table 1. The stride of a bottleneck sits in its
3x3 convolution, as in torchvision. `stages=3` ends at stride 16.
"""

from __future__ import annotations

from torch import Tensor, nn

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
WIDTHS = (64, 128, 256, 512)


class ResNetEncoder(nn.Module):
    """A ResNet without its classifier.

    Attributes:
        channels: Channels of every returned map, finest first.
        strides: Input pixels per sample of every returned map, finest first.
    """

    def __init__(self, depth: int = 18, stages: int = 4) -> None:
        super().__init__()
        if depth not in BLOCKS:
            raise ValueError(f"ResNet depth is {depth}; allowed are {sorted(BLOCKS)}")
        if not 1 <= stages <= 4:
            raise ValueError(f"ResNet has stages 1 to 4, given {stages}")
        block = BasicBlock if depth < 50 else Bottleneck
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        incoming = 64
        for stage, (count, width) in enumerate(zip(BLOCKS[depth][:stages], WIDTHS, strict=False), start=1):
            setattr(self, f"layer{stage}", _stage(block, incoming, width, count, 1 if stage == 1 else 2))
            incoming = width * block.expansion
        self.stages = stages
        self.channels = tuple(width * block.expansion for width in WIDTHS[:stages])
        self.strides = (4, 8, 16, 32)[:stages]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return one map a stage: [N, C, H / stride, W / stride], sides rounded up."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        maps = []
        for stage in range(1, self.stages + 1):
            x = getattr(self, f"layer{stage}")(x)
            maps.append(x)
        return maps


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, incoming: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(incoming, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(incoming, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, width, H / stride, W / stride]."""
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut."""

    expansion = 4

    def __init__(self, incoming: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(incoming, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(incoming, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, 4 width, H / stride, W / stride]."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + self.downsample(x))


def _shortcut(incoming: int, outgoing: int, stride: int) -> nn.Module:
    if stride == 1 and incoming == outgoing:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(incoming, outgoing, 1, stride, bias=False), nn.BatchNorm2d(outgoing))


def _stage(
    block: type[BasicBlock | Bottleneck], incoming: int, width: int, count: int, stride: int
) -> nn.Sequential:
    first = block(incoming, width, stride)
    rest = [block(width * block.expansion, width, 1) for _ in range(count - 1)]
    return nn.Sequential(first, *rest)
