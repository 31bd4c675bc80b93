"""ESPNet: a pyramid of dilated convolutions in place of each large one.

Source: Mehta, Rastegari, Caspi, Shapiro, Hajishirzi, "ESPNet: Efficient Spatial Pyramid of Dilated
Convolutions for Semantic Segmentation", ECCV 2018. Published weights: p = 2, q = 8, CamVid.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import foveal
from studies.networks.blocks import CAMVID, Convolution, ConvolutionNormPReLU, NormPReLU, halving

EPS = 1e-3
"""Added to the variance of every norm."""
DILATIONS = (1, 2, 4, 8, 16)
"""Of the convolutions of a pyramid."""
PREPROCESS = foveal.Preprocess(
    mean=(109.8, 107.8, 104.4),
    std=tuple(255 * s for s in (72.2, 72.8, 70.0)),
    scale=255.0,
    channel_order="bgr",
)
"""Blue, green, red, 0..255; the published weights divide by the deviation and by 255 too."""


class Pyramid(nn.Module):
    """Dilated convolutions of a narrow map side by side; each adds the narrower one (the paper's HFF).

    Args:
        incoming: Channels of the map.
        outgoing: Channels of the result; the convolution without dilation has what five do not divide.
        kernel: Of the convolution that narrows the map.
        stride: Of the same.
    """

    def __init__(self, incoming: int, outgoing: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        narrow = outgoing // len(DILATIONS)
        first = outgoing - narrow * (len(DILATIONS) - 1)
        self.c1 = Convolution(incoming, narrow, kernel, stride)
        for dilation in DILATIONS:
            width = first if dilation == 1 else narrow
            self.add_module(f"d{dilation}", Convolution(narrow, width, 3, dilation=dilation))

    def pyramid(self, x: Any) -> Tensor:
        """Map [N, C, H, W] to [N, O, H / stride, W / stride]."""
        inner = self.c1(x)
        parts = [self.get_submodule(f"d{dilation}")(inner) for dilation in DILATIONS]
        for k in range(2, len(parts)):
            parts[k] = parts[k] + parts[k - 1]
        return torch.cat(parts, 1)


class PyramidBlock(Pyramid):
    """A pyramid that keeps the size of its map.

    Args:
        incoming: Channels of the map.
        outgoing: Channels of the result.
        shortcut: Whether the map is added to the result.
    """

    def __init__(self, incoming: int, outgoing: int, shortcut: bool = True) -> None:
        super().__init__(incoming, outgoing)
        self.bn = NormPReLU(outgoing, EPS)
        self.shortcut = shortcut

    def forward(self, x: Any) -> Tensor:
        """Map [N, C, H, W] to [N, O, H, W]."""
        found = self.pyramid(x)
        return self.bn(x + found if self.shortcut else found)


class PyramidDown(Pyramid):
    """A pyramid that halves its map."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        super().__init__(incoming, outgoing, 3, 2)
        self.bn = nn.BatchNorm2d(outgoing, EPS)
        self.act = nn.PReLU(outgoing)

    def forward(self, x: Any) -> Tensor:
        """Map [N, C, H, W] to [N, O, H / 2, W / 2]."""
        return self.act(self.bn(self.pyramid(x)))


class Encoder(nn.Module):
    """From the image to maps at strides 2, 4 and 8 (the paper's ESPNet-C).

    Args:
        classes: Number of outputs.
        blocks: Blocks of the second and the third stage (the paper's p and q).
        widths: Channels of the three stages.
    """

    def __init__(self, classes: int, blocks: tuple[int, int], widths: tuple[int, int, int]) -> None:
        super().__init__()
        one, two, three = widths
        self.level1 = ConvolutionNormPReLU(3, one, 3, 2, eps=EPS)
        self.reduced = halving()
        self.b1 = NormPReLU(one + 3, EPS)
        self.level2_0 = PyramidDown(one + 3, two)
        self.level2 = nn.Sequential(*(PyramidBlock(two, two) for _ in range(blocks[0])))
        self.b2 = NormPReLU(2 * two + 3, EPS)
        self.level3_0 = PyramidDown(2 * two + 3, three)
        self.level3 = nn.Sequential(*(PyramidBlock(three, three) for _ in range(blocks[1])))
        self.b3 = NormPReLU(2 * three, EPS)
        self.classifier = Convolution(2 * three, classes, 1)

    def forward(self, image: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Map images [N, 3, H, W] to features at strides 2 and 4, and to outputs at stride 8."""
        half = self.reduced(image)
        first = self.b1(torch.cat([self.level1(image), half], 1))
        down = self.level2_0(first)
        second = self.b2(torch.cat([self.level2(down), down, self.reduced(half)], 1))
        down = self.level3_0(second)
        third = self.b3(torch.cat([down, self.level3(down)], 1))
        return first, second, self.classifier(third)


class ESPNet(nn.Module):
    """The whole network; sides of images are multiples of 8 px.

    Args:
        outputs: Outputs of the weights.
        classes: How many of them are classes, the first K; others are dropped.
        blocks: Blocks of the second and the third stage (the paper's p and q).
        widths: Channels of the three stages.
    """

    def __init__(
        self,
        outputs: int = 12,
        classes: int = 11,
        blocks: tuple[int, int] = (2, 8),
        widths: tuple[int, int, int] = (16, 64, 128),
    ) -> None:
        super().__init__()
        self.classes = classes
        self.encoder = Encoder(outputs, blocks, widths)
        self.level3_C = Convolution(2 * widths[1] + 3, outputs, 1)
        self.br = nn.BatchNorm2d(outputs, EPS)
        self.up_l3 = nn.Sequential(_doubling(outputs))
        merged = PyramidBlock(2 * outputs, outputs, shortcut=False)
        self.combine_l2_l3 = nn.Sequential(NormPReLU(2 * outputs, EPS), merged)
        self.up_l2 = nn.Sequential(_doubling(outputs), NormPReLU(outputs, EPS))
        self.conv = ConvolutionNormPReLU(widths[0] + 3 + outputs, outputs, 3, eps=EPS)
        self.classifier = _doubling(outputs)

    def forward(self, image: Any) -> Tensor:
        """Map images [N, 3, H, W] to logits [N, K, H, W]."""
        first, second, third = self.encoder(image)
        enlarged = self.up_l3(self.br(third))
        merged = self.combine_l2_l3(torch.cat([self.level3_C(second), enlarged], 1))
        joint = self.conv(torch.cat([self.up_l2(merged), first], 1))
        return self.classifier(joint)[:, : self.classes]


def _doubling(channels: int) -> nn.ConvTranspose2d:
    """Make what turns every sample into 2 x 2."""
    return nn.ConvTranspose2d(channels, channels, 2, 2, bias=False)


def network() -> ESPNet:
    """Make p = 2, q = 8 for CamVid, with random weights."""
    return ESPNet(len(CAMVID) + 1, len(CAMVID))


def camvid() -> foveal.AdaptiveModel:
    """Make p = 2, q = 8 for CamVid with what its images need; weights are loaded into it."""
    return foveal.adapt(
        network(),
        preprocess=PREPROCESS,
        classes=CAMVID,
        source="studies.networks.espnet:network",
        compile_now=False,
    )
