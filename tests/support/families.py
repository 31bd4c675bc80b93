"""Small networks of the families that people train: what is typical of each, written for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def block(incoming: int, outgoing: int, stride: int = 1, act: nn.Module | None = None) -> nn.Sequential:
    """Convolution, norm, activation."""
    layer = nn.Conv2d(incoming, outgoing, 3, stride, 1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outgoing), act or nn.ReLU())


class TensorFlowPadded(nn.Conv2d):
    """A convolution whose padding follows from the sides of the map, more of it at the end."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        down, across = (self._missing(side, axis) for axis, side in enumerate((height, width)))
        if down > 0 or across > 0:
            x = F.pad(x, [across // 2, across - across // 2, down // 2, down - down // 2])
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)

    def _missing(self, side: int, axis: int) -> int:
        kernel, stride = self.kernel_size[axis], self.stride[axis]
        return max((-(-int(side) // stride) - 1) * stride + kernel - int(side), 0)


class Gate(nn.Module):
    """Weigh channels by what the whole image holds."""

    def __init__(self, channels: int, gate: nn.Module, act: nn.Module) -> None:
        super().__init__()
        self.squeeze, self.excite = (
            nn.Conv2d(channels, channels // 2, 1),
            nn.Conv2d(channels // 2, channels, 1),
        )
        self.gate, self.act = gate, act

    def forward(self, x: Tensor) -> Tensor:
        mean = F.adaptive_avg_pool2d(x, 1)
        return x * self.gate(self.excite(self.act(self.squeeze(mean))))


class InvertedResidual(nn.Module):
    """Expand, filter, weigh, project, as EfficientNet and MobileNetV3 do."""

    def __init__(self, channels: int, stride: int, act: Callable[[], nn.Module], gate: nn.Module) -> None:
        super().__init__()
        wide = 2 * channels
        filtered = TensorFlowPadded(wide, wide, 3 if stride == 1 else 5, stride, groups=wide, bias=False)
        self.expand = nn.Sequential(nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), act())
        self.filter = nn.Sequential(filtered, nn.BatchNorm2d(wide), act())
        self.weigh = Gate(wide, gate, act())
        self.project = nn.Sequential(nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels))
        self.shortcut = stride == 1

    def forward(self, x: Tensor) -> Tensor:
        found = self.project(self.weigh(self.filter(self.expand(x))))
        return x + found if self.shortcut else found


class EfficientUNet(nn.Module):
    """Inverted residuals with padding by size, and a decoder that enlarges to sizes."""

    def __init__(self, act: Callable[[], nn.Module] = nn.SiLU, gate: nn.Module | None = None) -> None:
        super().__init__()
        gate = gate or nn.Sigmoid()
        self.stem = nn.Sequential(TensorFlowPadded(3, 8, 3, 2, bias=False), nn.BatchNorm2d(8), act())
        self.one, self.two = InvertedResidual(8, 1, act, gate), InvertedResidual(8, 2, act, gate)
        self.up, self.head = block(16, 8), nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        fine = self.one(self.stem(image))
        large = F.interpolate(self.two(fine), size=(fine.shape[2], fine.shape[3]), mode="nearest")
        return self.head(self.up(torch.cat([large, fine], dim=1)))


class ChannelNorm(nn.LayerNorm):
    """A norm over channels of maps with channels first."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


class NextBlock(nn.Module):
    """Filter, norm, and two products, channels last."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.filter = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm, self.act = nn.LayerNorm(channels, eps=1e-6), nn.GELU()
        self.one, self.two = nn.Linear(channels, 2 * channels), nn.Linear(2 * channels, channels)
        self.gamma = nn.Parameter(torch.rand(channels) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.filter(x).permute(0, 2, 3, 1))
        return x + (self.gamma * self.two(self.act(self.one(y)))).permute(0, 3, 1, 2)


class Next(nn.Module):
    """Patches of 4 x 4 and 2 x 2, and a decoder that enlarges bilinearly with the corners aligned."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 4, 4), ChannelNorm(8))
        self.body, self.down = NextBlock(8), nn.Sequential(ChannelNorm(8), nn.Conv2d(8, 16, 2, 2))
        self.deep, self.head = NextBlock(16), nn.Conv2d(24, 4, 1)
        self.up = nn.UpsamplingBilinear2d(scale_factor=2)

    def forward(self, image: Tensor) -> Tensor:
        fine = self.body(self.stem(image))
        deep = self.deep(self.down(fine))
        return self.head(torch.cat([self.up(deep), fine], 1))


class Atrous(nn.Module):
    """Dilated branches beside one that sees the mean of the image, and resizing to the image's size."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(block(3, 8, 2), block(8, 16, 2))
        self.near = nn.Conv2d(16, 8, 1)
        self.far = nn.Conv2d(16, 8, 3, padding=4, dilation=4)
        mean = nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        self.mean, self.head = nn.Sequential(*mean), nn.Conv2d(24, 4, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = self.body(image)
        mean = F.interpolate(self.mean(x), size=x.shape[-2:], mode="bilinear", align_corners=False)
        logits = self.head(torch.cat([self.near(x), self.far(x), mean], 1))
        return F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)


class PyramidParsing(nn.Module):
    """Means over grids of several sizes, spread over the map."""

    def __init__(self, corners: bool = True) -> None:
        super().__init__()
        self.body, self.corners = nn.Sequential(block(3, 8, 2), block(8, 16, 2)), corners
        grids = [
            nn.Sequential(nn.AdaptiveAvgPool2d(n), nn.Conv2d(16, 4, 1), nn.ReLU()) for n in (1, 2, (3, 2), 6)
        ]
        self.grids, self.head = nn.ModuleList(grids), nn.Conv2d(32, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.body(image)
        how: dict[str, Any] = {"mode": "bilinear", "align_corners": self.corners}
        spread = [F.interpolate(grid(x), size=x.size()[2:], **how) for grid in self.grids]
        return self.head(torch.cat([*spread, x], dim=1))


class FeaturePyramid(nn.Module):
    """Norms of groups over the image, sums of enlarged maps."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = block(3, 8, 2, nn.LeakyReLU(0.1)), block(8, 8, 2, nn.GELU("tanh"))
        self.across = nn.Conv2d(8, 8, 1)
        self.norm = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.GroupNorm(4, 8), nn.ReLU())
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        fine = self.one(image)
        x = F.interpolate(self.two(fine), scale_factor=2.0, mode="nearest") + self.across(fine)
        x = F.interpolate(self.norm(x), scale_factor=2, mode="bilinear", align_corners=True)
        return self.head(x).tanh() * 2 - 1


class Link(nn.Module):
    """Transposed convolutions whose windows overlap, and a decision by the sizes of maps."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = block(3, 8, 2), block(8, 12, 2)
        self.up = nn.Sequential(nn.ConvTranspose2d(12, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.last, self.head = nn.ConvTranspose2d(8, 6, 3, 2, 1, output_padding=1), nn.Conv2d(6, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        if image.ndim != 4 or image.shape[-2] % 4:
            raise ValueError("sides must be multiples of 4")
        fine = self.one(image)
        large = self.up(self.two(fine))
        if large.shape[-2:] != fine.shape[-2:]:
            raise ValueError("maps do not fit")
        return self.head(self.last(large + fine))


class Sequences(nn.Module):
    """Maps as sequences of samples, mixed by products, and brought together at one size."""

    def __init__(self, fine: bool = True) -> None:
        super().__init__()
        self.fine = fine
        self.one, self.two = block(3, 8, 2), block(8, 12, 2)
        self.mix = nn.ModuleList([nn.Linear(8, 8), nn.Linear(12, 8)])
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        fine = self.one(image)
        found = []
        for x, mix in zip((fine, self.two(fine)), self.mix, strict=True):
            n, _, height, width = x.shape
            y = mix(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(n, -1, height, width).contiguous()
            size = (
                (found[0] if found else y).shape[2:] if self.fine else [side // 4 for side in image.shape[2:]]
            )
            found.append(F.interpolate(y, size=size, mode="bilinear", align_corners=False))
        return self.head(torch.cat(found[::-1], 1))


class Attended(nn.Module):
    """A map weighed by one of a single channel and by a vector, as in pyramid attention."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.single = nn.Sequential(block(3, 8, 2), block(8, 8, 2)), nn.Conv2d(8, 1, 1)
        self.mean, self.head = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.body(image)
        vector = self.mean(x.mean((2, 3), keepdim=True))
        low = F.max_pool2d(x, 2)
        large = F.interpolate(self.single(low), size=x.shape[2:], mode="bilinear", align_corners=True)
        return self.head(torch.mul(large, x) + torch.sigmoid(vector) * x + vector)


class Grouped(nn.Module):
    """Groups of a few channels, as in ResNeXt and RegNet: some of one block of outputs, some of several."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(block(3, 24, 2), nn.Conv2d(24, 24, 3, padding=1, groups=3), nn.ReLU())
        self.wide = nn.Sequential(nn.Conv2d(24, 72, 1, bias=False), nn.BatchNorm2d(72), nn.ReLU())
        self.mix = nn.Sequential(nn.Conv2d(72, 72, 3, padding=1, groups=18, bias=False), nn.BatchNorm2d(72))
        self.down = nn.Sequential(nn.Conv2d(72, 96, 5, 2, 2, groups=2), nn.ReLU6())
        self.more = nn.Conv2d(96, 192, 3, padding=2, dilation=2, groups=96)
        self.head = nn.Conv2d(192, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        wide = self.wide(self.stem(image))
        return self.head(self.more(self.down(F.relu(wide + self.mix(wide)))))


class ContextGuided(nn.Module):
    """Slopes per channel, the image averaged beside features, and a gate of linear layers, as in CGNet."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.smaller = block(3, 13, 2, nn.PReLU(13, 0.3)), nn.AvgPool2d(3, 2, padding=1)
        self.norm = nn.Sequential(nn.BatchNorm2d(16), nn.PReLU(16))
        self.near = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
        self.far = nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=16, bias=False)
        self.joint = nn.Sequential(nn.BatchNorm2d(32), nn.PReLU(32, 0.1), nn.Conv2d(32, 16, 1))
        self.gate = nn.Sequential(nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 16), nn.Sigmoid())
        self.head = nn.Conv2d(19, 5, 1)

    def forward(self, image: Tensor) -> Tensor:
        half = self.smaller(image)
        x = self.norm(torch.cat([self.one(image), half], 1))
        x = self.joint(torch.cat([self.near(x), self.far(x)], 1))
        x = x * self.gate(x.mean((2, 3))).unflatten(1, (-1, 1, 1))
        x = F.avg_pool2d(F.prelu(x, self.norm[1].weight), (3, 5), 2, (1, 2))
        logits = self.head(torch.cat([x, self.smaller(half)], 1))
        return F.interpolate(logits, image.shape[2:], mode="bilinear", align_corners=False)[:, :4]


class Shuffled(nn.Module):
    """Channels of groups in turn, before products of all channels, of groups, and of each by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.shuffle = block(3, 24, 2), nn.ChannelShuffle(3)
        self.groups = nn.Conv2d(24, 12, 3, padding=1, groups=12, bias=False)
        self.every = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.norm, self.dense = nn.BatchNorm2d(12), nn.Conv2d(12, 64, 1)
        self.many, self.head = nn.Conv2d(64, 64, 1, groups=64), nn.Conv2d(64, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.groups(self.shuffle(self.one(image)))
        x = self.every(F.channel_shuffle(x, 4))
        x = F.relu(self.dense(F.relu(self.norm(self._turn(x, 2)))))
        return self.head(torch.sigmoid(self.many(self._turn(x, 8))) + x[:, -1:])

    def _turn(self, x: Tensor, groups: int) -> Tensor:
        n, channels, height, width = x.shape
        x = x.view(n, groups, channels // groups, height, width).transpose(1, 2)
        return x.reshape(n, channels, height, width)


class Scales(nn.Module):
    """Looks at a map at several scales: larger, smaller, on a small grid and as one vector."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.larger, self.smaller, self.grid = (
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False) for _ in range(3)
        )
        self.down = nn.Sequential(block(channels, 6, 2), nn.MaxPool2d(3, 2, 1), nn.Conv2d(6, channels, 1))
        self.vector = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        larger = F.interpolate(x, [-(-3 * side // 2) for side in size], mode="bilinear", align_corners=True)
        found = F.adaptive_avg_pool2d(self.larger(larger), size)
        for layer, share in ((self.smaller, 2), (self.grid, 10)):
            sides = [max(3, -(-side // share)) for side in size]
            small = layer(F.adaptive_avg_pool2d(x, sides))
            found = found + F.interpolate(small, size, mode="bilinear", align_corners=share == 2)
        found = found + F.interpolate(self.down(x), size, mode="nearest")
        weights = self.vector(x)
        wide = F.interpolate(weights, size, mode="bilinear", align_corners=False)
        return torch.cat([F.relu(found) * weights, wide + x], 1)


class ScalePyramid(nn.Module):
    """A module that sees the whole map and is nobody's in particular, in the middle of a network."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.scales = nn.Sequential(block(3, 8, 2), block(8, 8, 2)), Scales(8)
        self.head = nn.Sequential(block(16, 12), nn.Conv2d(12, 4, 1))

    def forward(self, image: Tensor) -> Tensor:
        logits = self.head(self.scales(self.body(image)))
        return F.interpolate(logits, image.shape[2:], mode="bilinear", align_corners=False)


class EveryStep(nn.Module):
    """All that programs have steps for, in one small network; sides must be multiples of 8."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.fine, self.low = block(3, 8, 2, nn.SiLU()), block(8, 8, 2, nn.LeakyReLU(0.1))
        self.filter = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.mix = nn.Sequential(nn.Conv2d(8, 64, 1, groups=4), nn.PReLU(64), nn.Conv2d(64, 8, 1))
        self.norms = nn.Sequential(ChannelNorm(8), nn.GroupNorm(4, 8))
        self.vector, self.grid = nn.Conv2d(8, 8, 1), nn.AdaptiveAvgPool2d((2, 3))
        self.scales = nn.Sequential(Scales(8), nn.Conv2d(16, 8, 1))
        self.spread, self.pool = nn.ConvTranspose2d(8, 4, 2, 2), nn.MaxPool2d(2)
        self.head = nn.Conv2d(36, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        fine = self.fine(image)
        fine = fine + self.mix(fine)
        vector = self.vector(F.adaptive_avg_pool2d(fine, 1))
        low = self.norms(self.filter(self.low(fine)))
        low, spread = self.scales(low) * torch.sigmoid(vector) + vector, self.spread(low)
        size, mean = low.shape[2:], F.adaptive_avg_pool2d(low, 1)
        grid = F.interpolate(self.grid(low), size=size, mode="bilinear", align_corners=False)
        small = F.interpolate(fine, size=size, mode="bilinear", align_corners=False)
        low = (low + grid).tanh() * 2 - 1 + small + F.interpolate(mean, size=size)
        twice = F.interpolate(self.pool(low), scale_factor=2, mode="nearest")
        large = F.interpolate(low + twice, scale_factor=2, mode="bilinear", align_corners=False)
        corners = F.interpolate(low, size=fine.shape[2:], mode="bilinear", align_corners=True)
        return self.head(torch.cat([fine, large, corners, spread, self.filter(fine)], 1))


FAMILIES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "efficientnet": (EfficientUNet, 4),
    "mobilenetv3": (lambda: EfficientUNet(nn.Hardswish, nn.Hardsigmoid()), 4),
    "convnext": (Next, 8),
    "aspp": (Atrous, 1),
    "psp": (PyramidParsing, 1),
    "psp_half_pixel": (lambda: PyramidParsing(False), 1),
    "fpn": (FeaturePyramid, 4),
    "linknet": (Link, 4),
    "sequences": (Sequences, 1),
    "coarse_sequences": (lambda: Sequences(False), 4),
    "attention": (Attended, 8),
    "grouped": (Grouped, 1),
    "context_guided": (ContextGuided, 4),
    "shuffled": (Shuffled, 1),
    "scales": (ScalePyramid, 1),
}
"""What makes a network, and what the sides of images must be multiples of [px]."""
DENSE_MODULES = {"scales": ("scales",), "every step": ("scales",)}
"""Modules that see the whole map."""
