"""CGNet: every sample looks at its neighbours, at what surrounds them, and at the whole image.

Source: Wu, Tang, Zhang, Cao, Zhang, "CGNet: A Light-weight Context Guided Network for Semantic Segmentation",
IEEE Transactions on Image Processing 30, 2021. Published weights: M3N21, CamVid, trained on train and val.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import foveal
from studies.networks.blocks import CAMVID, Convolution, ConvolutionNormPReLU, NormPReLU, halving

EPS = 1e-3
"""Added to the variance of every norm."""
PREPROCESS = foveal.Preprocess(mean=(109.8, 107.8, 104.4), scale=255.0)
"""RGB, 0..255. The mean of blue comes first: so were the published weights trained."""


class GlobalContext(nn.Module):
    """Weighs channels by what the whole image shows (the paper's f_glo).

    Args:
        channels: Of the map.
        reduction: How many times fewer numbers the weights are computed from.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        within = channels // reduction
        self.fc = nn.Sequential(
            nn.Linear(channels, within), nn.ReLU(), nn.Linear(within, channels), nn.Sigmoid()
        )

    def forward(self, x: Any) -> Any:
        """Map [N, C, H, W] to the same shape."""
        weights = self.fc(self.pool(x).flatten(1))
        return x * weights.unflatten(1, (-1, 1, 1))


class ContextGuided(nn.Module):
    """A block that keeps the size of its map, with a shortcut around it (the paper's CG block).

    Args:
        channels: Of the map.
        dilation: Of what looks at the surroundings.
        reduction: As of `GlobalContext`.
    """

    def __init__(self, channels: int, dilation: int, reduction: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1x1 = ConvolutionNormPReLU(channels, half, 1, eps=EPS)
        self.F_loc = Convolution(half, half, 3, groups=half)
        self.F_sur = Convolution(half, half, 3, groups=half, dilation=dilation)
        self.bn_prelu = NormPReLU(channels, EPS)
        self.F_glo = GlobalContext(channels, reduction)

    def forward(self, x: Any) -> Any:
        """Map [N, C, H, W] to the same shape."""
        inner = self.conv1x1(x)
        joint = self.bn_prelu(torch.cat([self.F_loc(inner), self.F_sur(inner)], 1))
        return x + self.F_glo(joint)


class ContextGuidedDown(nn.Module):
    """A block that halves its map; it has no shortcut.

    Args:
        incoming: Channels of the map.
        outgoing: Channels of the result.
        dilation: Of what looks at the surroundings.
        reduction: As of `GlobalContext`.
    """

    def __init__(self, incoming: int, outgoing: int, dilation: int, reduction: int) -> None:
        super().__init__()
        self.conv1x1 = ConvolutionNormPReLU(incoming, outgoing, 3, 2, eps=EPS)
        self.F_loc = Convolution(outgoing, outgoing, 3, groups=outgoing)
        self.F_sur = Convolution(outgoing, outgoing, 3, groups=outgoing, dilation=dilation)
        self.bn = nn.BatchNorm2d(2 * outgoing, EPS)
        self.act = nn.PReLU(2 * outgoing)
        self.reduce = Convolution(2 * outgoing, outgoing, 1)
        self.F_glo = GlobalContext(outgoing, reduction)

    def forward(self, x: Any) -> Any:
        """Map [N, C, H, W] to [N, O, H / 2, W / 2]."""
        inner = self.conv1x1(x)
        joint = self.act(self.bn(torch.cat([self.F_loc(inner), self.F_sur(inner)], 1)))
        return self.F_glo(self.reduce(joint))


class CGNet(nn.Module):
    """The whole network, at stride 8, its logits enlarged to the image.

    Args:
        classes: Number of classes K.
        blocks: Blocks of the second and the third stage (the paper's M and N).
        width: Channels of the first stage; the next ones have 2 and 4 times as many.
    """

    def __init__(self, classes: int = 11, blocks: tuple[int, int] = (3, 21), width: int = 32) -> None:
        super().__init__()
        one, two, three = width, 2 * width, 4 * width
        self.level1_0 = ConvolutionNormPReLU(3, one, 3, 2, eps=EPS)
        self.level1_1 = ConvolutionNormPReLU(one, one, 3, eps=EPS)
        self.level1_2 = ConvolutionNormPReLU(one, one, 3, eps=EPS)
        self.reduced = halving()
        self.b1 = NormPReLU(one + 3, EPS)
        self.level2_0 = ContextGuidedDown(one + 3, two, 2, 8)
        self.level2 = nn.Sequential(*(ContextGuided(two, 2, 8) for _ in range(blocks[0] - 1)))
        self.bn_prelu_2 = NormPReLU(2 * two + 3, EPS)
        self.level3_0 = ContextGuidedDown(2 * two + 3, three, 4, 16)
        self.level3 = nn.Sequential(*(ContextGuided(three, 4, 16) for _ in range(blocks[1] - 1)))
        self.bn_prelu_3 = NormPReLU(2 * three, EPS)
        self.classifier = nn.Sequential(Convolution(2 * three, classes, 1))

    def forward(self, image: Any) -> Tensor:
        """Map images [N, 3, H, W] to logits [N, K, H, W]."""
        half = self.reduced(image)
        quarter = self.reduced(half)
        first = self.level1_2(self.level1_1(self.level1_0(image)))
        down = self.level2_0(self.b1(torch.cat([first, half], 1)))
        second = self.bn_prelu_2(torch.cat([self.level2(down), down, quarter], 1))
        down = self.level3_0(second)
        third = self.bn_prelu_3(torch.cat([down, self.level3(down)], 1))
        return F.interpolate(self.classifier(third), image.shape[2:], mode="bilinear", align_corners=False)


def network() -> CGNet:
    """Make M3N21 for CamVid, with random weights."""
    return CGNet(len(CAMVID))


def camvid() -> foveal.AdaptiveModel:
    """Make M3N21 for CamVid with what its images need; weights are loaded into it."""
    return foveal.adapt(
        network(),
        preprocess=PREPROCESS,
        classes=CAMVID,
        source="studies.networks.cgnet:network",
        compile_now=False,
    )
