"""ESPNetv2 for segmentation: pyramids of depthwise dilated convolutions, and pyramids of scales behind them.

Source: Mehta, Rastegari, Shapiro, Hajishirzi, "ESPNetv2: A Light-weight, Power Efficient, and General Purpose
Convolutional Neural Network", CVPR 2019. Published weights: s = 2.0, 1.0, 0.5, Cityscapes at 1024x512.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import foveal
from foveal.data.cityscapes import COLOURS
from studies.networks.blocks import Convolution, ConvolutionNorm, ConvolutionNormPReLU, NormPReLU, halving

EPS = 1e-5
"""Added to the variance of every norm."""
BRANCHES = 4
"""Convolutions of a pyramid (the paper's K), which is also the number of groups of channels around it."""
WIDE, NARROW = (1, 2, 3, 4), (1, 1, 2, 3)
"""Dilations of a pyramid whose reach may be 9 samples or more, or 7 at the most, as at stride 16."""
WIDTHS = {0.5: (16, 32, 64, 128), 1.0: (32, 64, 128, 256), 2.0: (32, 128, 256, 512)}
"""Channels at strides 2, 4, 8, 16, by the paper's s."""
BLOCKS = 3, 7
"""Pyramids that keep the size of their map, at strides 8 and 16."""
DECODER = 64, 48, 32
"""Channels of the decoder at strides 16, 8, 4; at stride 2 it has one per output."""
SCALES = tuple(map(Fraction, ("2", "1.5", "1", "0.5", "0.1")))
"""Sides of the maps that a pyramid of scales looks at, as shares of those of its own."""
LEAST = 5
"""Sides of these maps at the least."""
SCALED = 10
"""Channels of a pyramid of scales: half of the outputs, and no more than a quarter of the decoder's."""
PREPROCESS = foveal.Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


class Pyramid(nn.Module):
    """Depthwise dilated convolutions side by side; each adds the narrower one (the paper's EESP).

    Args:
        incoming: Channels of the map.
        outgoing: Channels of the result.
        dilations: Of the convolutions.
        stride: 1 adds the map to the result and ends in an activation, 2 halves the map.
    """

    def __init__(self, incoming: int, outgoing: int, dilations: tuple[int, ...], stride: int = 1) -> None:
        super().__init__()
        narrow = outgoing // BRANCHES
        self.proj_1x1 = ConvolutionNormPReLU(incoming, narrow, 1, eps=EPS, groups=BRANCHES)
        self.spp_dw = nn.ModuleList(
            Convolution(narrow, narrow, 3, stride, groups=narrow, dilation=d) for d in dilations
        )
        self.br_after_cat = NormPReLU(outgoing, EPS)
        self.conv_1x1_exp = ConvolutionNorm(outgoing, outgoing, 1, eps=EPS, groups=BRANCHES)
        self.module_act = nn.PReLU(outgoing)
        self.stride = stride

    def forward(self, x: Any) -> Any:
        """Map [N, C, H, W] to [N, O, H / stride, W / stride]."""
        inner = self.proj_1x1(x)
        parts = [self.spp_dw[0](inner)]
        for layer in list(self.spp_dw)[1:]:
            parts.append(layer(inner) + parts[-1])
        found = self.conv_1x1_exp(self.br_after_cat(torch.cat(parts, 1)))
        return found if self.stride > 1 else self.module_act(found + x)


class PyramidDown(nn.Module):
    """Halves a map by means and by a pyramid, and reminds it of the image (the paper's strided EESP)."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        super().__init__()
        self.eesp = Pyramid(incoming, outgoing - incoming, WIDE, 2)
        self.avg = halving()
        self.inp_reinf = nn.Sequential(
            ConvolutionNormPReLU(3, 3, 3, eps=EPS), ConvolutionNorm(3, outgoing, 1, eps=EPS)
        )
        self.act = nn.PReLU(outgoing)

    def forward(self, x: Any, image: Any) -> Any:
        """Map [N, C, H, W], and the image at half of its sides, to [N, O, H / 2, W / 2]."""
        joint = torch.cat([self.avg(x), self.eesp(x)], 1)
        return self.act(joint + self.inp_reinf(image))


class Encoder(nn.Module):
    """From the image to maps at strides 2, 4, 8, 16.

    Args:
        widths: Their channels.
        blocks: Pyramids at strides 8 and 16 that keep the size of their map.
    """

    def __init__(self, widths: tuple[int, int, int, int], blocks: tuple[int, int]) -> None:
        super().__init__()
        one, two, three, four = widths
        self.level1 = ConvolutionNormPReLU(3, one, 3, 2, eps=EPS)
        self.reduced = halving()
        self.level2_0 = PyramidDown(one, two)
        self.level3_0 = PyramidDown(two, three)
        self.level3 = nn.Sequential(*(Pyramid(three, three, WIDE) for _ in range(blocks[0])))
        self.level4_0 = PyramidDown(three, four)
        self.level4 = nn.Sequential(*(Pyramid(four, four, NARROW) for _ in range(blocks[1])))

    def forward(self, image: Any) -> tuple[Any, Any, Any, Any]:
        """Map images [N, 3, H, W] to maps at strides 2, 4, 8, 16."""
        first = self.level1(image)
        image = self.reduced(self.reduced(image))
        second = self.level2_0(first, image)
        image = self.reduced(image)
        third = self.level3(self.level3_0(second, image))
        return first, second, third, self.level4(self.level4_0(third, self.reduced(image)))


class Scaled(nn.Conv2d):
    """A depthwise convolution of a map that is resized before, and resized back behind it.

    Args:
        channels: Of the map.
        scale: Sides of the resized map, as a share of those of the map; at least `LEAST` samples.
    """

    def __init__(self, channels: int, scale: Fraction) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.scale = scale

    def forward(self, x: Any) -> Any:
        """Map [N, C, H, W] to the same shape."""
        size = x.shape[2:]
        if self.scale == 1:
            return super().forward(x)
        up, down = self.scale.numerator, self.scale.denominator
        sides = tuple(max(LEAST, -(-side * up // down)) for side in size)
        if self.scale < 1:
            found = super().forward(F.adaptive_avg_pool2d(x, sides))
            return F.interpolate(found, size, mode="bilinear", align_corners=True)
        found = super().forward(F.interpolate(x, sides, mode="bilinear", align_corners=True))
        return F.adaptive_avg_pool2d(found, size)


class ScalePyramid(nn.Module):
    """Looks at a map at several scales (the paper's efficient pyramid pooling).

    Args:
        incoming: Channels of the map.
        outgoing: Channels of the result.
        last: Whether it ends the network: then with a bias, else with a norm and an activation.
    """

    def __init__(self, incoming: int, outgoing: int, last: bool = False) -> None:
        super().__init__()
        count = len(SCALES)
        self.projection_layer = _named("cbr", ConvolutionNormPReLU(incoming, SCALED, 1, eps=EPS))
        self.stages = nn.ModuleList(Scaled(SCALED, scale) for scale in SCALES)
        self.merge_layer = nn.Sequential(
            _named("br", NormPReLU(count * SCALED, EPS)),
            nn.ChannelShuffle(count),
            _named("cbr", ConvolutionNormPReLU(count * SCALED, SCALED, 3, eps=EPS, groups=SCALED)),
            nn.Conv2d(SCALED, outgoing, 1, bias=last),
        )
        self.br = nn.Identity() if last else _named("br", NormPReLU(outgoing, EPS))

    def forward(self, x: Any) -> Any:
        """Map [N, C, H, W] to [N, O, H, W]."""
        inner = self.projection_layer(x)
        return self.br(self.merge_layer(torch.cat([stage(inner) for stage in self.stages], 1)))


class Skip(nn.Module):
    """Brings a map of the encoder to the channels of the decoder, weighed by what the whole image shows."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        super().__init__()
        groups = math.gcd(incoming, outgoing)
        mixing = nn.Conv2d(incoming, outgoing, 1, bias=False)
        self.wt_layer = nn.Sequential(nn.AdaptiveAvgPool2d(1), mixing, nn.Sigmoid())
        layer = ConvolutionNormPReLU(incoming, outgoing, 3, eps=EPS, groups=groups)
        self.expansion_layer = _named("cbr", layer)

    def forward(self, x: Any) -> Any:
        """Map [N, C, H, W] to [N, O, H, W]."""
        return self.expansion_layer(x) * self.wt_layer(x)


class ESPNetv2(nn.Module):
    """The whole network, its logits enlarged to the image; sides of images are multiples of 16 px.

    Args:
        outputs: Outputs of the weights.
        classes: How many of them are classes, the first K; others are dropped.
        widths: Channels of the encoder at strides 2, 4, 8, 16.
        blocks: As of `Encoder`.
    """

    def __init__(
        self,
        outputs: int = 20,
        classes: int = 19,
        widths: tuple[int, int, int, int] = WIDTHS[2.0],
        blocks: tuple[int, int] = BLOCKS,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.base_net = Encoder(widths, blocks)
        first, second, third = DECODER
        self.bu_dec_l1 = ScalePyramid(widths[3], first)
        self.merge_enc_dec_l2, self.bu_br_l2 = Skip(widths[2], first), _norm_prelu(first)
        self.bu_dec_l2 = ScalePyramid(first, second)
        self.merge_enc_dec_l3, self.bu_br_l3 = Skip(widths[1], second), _norm_prelu(second)
        self.bu_dec_l3 = ScalePyramid(second, third)
        self.merge_enc_dec_l4, self.bu_br_l4 = Skip(widths[0], third), _norm_prelu(third)
        self.bu_dec_l4 = ScalePyramid(third, outputs, last=True)
        self.enlarge = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)

    def forward(self, image: Any) -> Tensor:
        """Map images [N, 3, H, W] to logits [N, K, H, W]."""
        one, two, three, four = self.base_net(image)
        x = self.bu_dec_l1(four)
        x = self.bu_dec_l2(self.bu_br_l2(self.merge_enc_dec_l2(three) + self.enlarge(x)))
        x = self.bu_dec_l3(self.bu_br_l3(self.merge_enc_dec_l3(two) + self.enlarge(x)))
        x = self.bu_dec_l4(self.bu_br_l4(self.merge_enc_dec_l4(one) + self.enlarge(x)))
        return self.enlarge(x[:, : self.classes])


def _norm_prelu(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels, EPS), nn.PReLU(channels))


class _Named(nn.Module):
    """Layers one after the other, under a name that the weights have."""

    def __init__(self, name: str, layers: nn.Sequential) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, layers)

    def forward(self, x: Any) -> Any:
        """Run the layers."""
        return self.get_submodule(self.name)(x)


def _named(name: str, layer: nn.Module) -> nn.Module:
    """Put the parts of a layer into a sequence of a name."""
    return _Named(name, nn.Sequential(*layer.children()))


def network(s: float = 2.0) -> ESPNetv2:
    """Make the network of the paper's s for Cityscapes, with random weights."""
    return ESPNetv2(widths=WIDTHS[s])


def cityscapes(s: float = 2.0) -> foveal.AdaptiveModel:
    """Make the network for Cityscapes with what its images need; weights are loaded into it.

    Args:
        s: Width, a key of `WIDTHS`.
    """
    made = network(s)
    return foveal.adapt(
        made,
        preprocess=PREPROCESS,
        classes=tuple(COLOURS),
        palette=tuple(COLOURS.values()),
        dense_modules=whole_map_parts(made),
        source="studies.networks.espnetv2:network",
        arguments={"s": s},
        compile_now=False,
    )


def cityscapes_1() -> foveal.AdaptiveModel:
    """Make `cityscapes` of s = 1.0."""
    return cityscapes(1.0)


def cityscapes_half() -> foveal.AdaptiveModel:
    """Make `cityscapes` of s = 0.5."""
    return cityscapes(0.5)


def whole_map_parts(made: ESPNetv2) -> tuple[str, ...]:
    """List what must see the whole map: scales whose maps are none of a whole stride, or small grids."""
    parts = ((name, part) for name, part in made.named_modules() if isinstance(part, Scaled))
    return tuple(name for name, part in parts if part.scale.denominator > 1)
