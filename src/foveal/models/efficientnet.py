"""EfficientNet-Lite encoders, with the parameter names of timm.

Source: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019,
table 1 and section 3.3; the Lite rules (no squeeze-and-excitation, ReLU6, stem not scaled, first and last
stage not deepened) are those of tensorflow/tpu, models/official/efficientnet/lite.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from foveal.models.mobilenet import convolution, round_channels


class Stage(NamedTuple):
    """A row of the paper's table 1: blocks of equal width, the first of which may reduce the map."""

    channels: int
    blocks: int
    kernel: int
    stride: int


STEM = 32
EXPANSION = 6
STAGES = (
    Stage(16, 1, 3, 1),
    Stage(24, 2, 3, 2),
    Stage(40, 2, 5, 2),
    Stage(80, 3, 3, 2),
    Stage(112, 3, 5, 1),
    Stage(192, 4, 5, 2),
    Stage(320, 1, 3, 1),
)
RETURNED = (1, 2, 4, 6)
"""Indices of the last stage at strides 4, 8, 16 and 32."""

VARIANTS = {
    "lite0": (1.0, 1.0),
    "lite1": (1.0, 1.1),
    "lite2": (1.1, 1.2),
    "lite3": (1.2, 1.4),
    "lite4": (1.4, 1.8),
}
"""Multipliers of channels and of blocks."""

norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)


class EfficientNetLiteEncoder(nn.Module):
    """An EfficientNet-Lite without its classifier; lite1: 20.1 GMAC at 1024x2048.

    Args:
        variant: "lite0" to "lite4".
        same_padding: Pad strided convolutions as TensorFlow does; weights trained there need it.

    Attributes:
        channels: Channels of every returned map, finest first.
        strides: Input pixels per sample of every returned map, finest first.
    """

    def __init__(self, variant: str = "lite1", same_padding: bool = False) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"EfficientNet-Lite variant is '{variant}'; allowed are {', '.join(VARIANTS)}")
        stages = scale_stages(*VARIANTS[variant])
        self.conv_stem = convolution(3, STEM, 3, 2, same_padding)
        self.bn1 = norm(STEM)
        self.activation = nn.ReLU6()
        self.blocks = nn.Sequential()
        incoming = STEM
        for stage in stages:
            block = InvertedResidual if len(self.blocks) else SeparableBlock
            self.blocks.append(_build_stage(block, incoming, stage, same_padding))
            incoming = stage.channels
        self.channels = tuple(stages[index].channels for index in RETURNED)
        self.strides = (4, 8, 16, 32)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map [N, 3, H, W] to four maps [N, C, H / stride, W / stride], sides rounded up."""
        x = self.activation(self.bn1(self.conv_stem(image)))
        maps = []
        for index, stage in enumerate(self.blocks):
            x = stage(x)
            if index in RETURNED:
                maps.append(x)
        return maps


class SeparableBlock(nn.Module):
    """Filter every channel with k x k, project with 1x1 (linear)."""

    def __init__(self, incoming: int, outgoing: int, kernel: int, stride: int, same_padding: bool) -> None:
        super().__init__()
        self.conv_dw = convolution(incoming, incoming, kernel, stride, same_padding, groups=incoming)
        self.bn1 = norm(incoming)
        self.conv_pw = convolution(incoming, outgoing, 1)
        self.bn2 = norm(outgoing)
        self.activation = nn.ReLU6()
        self.residual = stride == 1 and incoming == outgoing

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, outgoing, H / stride, W / stride]."""
        y = self.activation(self.bn1(self.conv_dw(x)))
        y = self.bn2(self.conv_pw(y))
        return x + y if self.residual else y


class InvertedResidual(nn.Module):
    """Expand with 1x1, filter every channel with k x k, project with 1x1 (linear)."""

    def __init__(self, incoming: int, outgoing: int, kernel: int, stride: int, same_padding: bool) -> None:
        super().__init__()
        hidden = EXPANSION * incoming
        self.conv_pw = convolution(incoming, hidden, 1)
        self.bn1 = norm(hidden)
        self.conv_dw = convolution(hidden, hidden, kernel, stride, same_padding, groups=hidden)
        self.bn2 = norm(hidden)
        self.conv_pwl = convolution(hidden, outgoing, 1)
        self.bn3 = norm(outgoing)
        self.activation = nn.ReLU6()
        self.residual = stride == 1 and incoming == outgoing

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, outgoing, H / stride, W / stride]."""
        y = self.activation(self.bn1(self.conv_pw(x)))
        y = self.activation(self.bn2(self.conv_dw(y)))
        y = self.bn3(self.conv_pwl(y))
        return x + y if self.residual else y


def scale_stages(width: float, depth: float) -> list[Stage]:
    """Widen every stage, and deepen all but the first and the last."""
    wide = [stage._replace(channels=round_channels(stage.channels, width)) for stage in STAGES]
    deep = [stage._replace(blocks=math.ceil(stage.blocks * depth)) for stage in wide[1:-1]]
    return [wide[0], *deep, wide[-1]]


def _build_stage(block: type[nn.Module], incoming: int, stage: Stage, same_padding: bool) -> nn.Sequential:
    channels, count, kernel, stride = stage
    first = block(incoming, channels, kernel, stride, same_padding)
    rest = [block(channels, channels, kernel, 1, same_padding) for _ in range(count - 1)]
    return nn.Sequential(first, *rest)
