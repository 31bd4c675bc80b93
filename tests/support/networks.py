"""Small random networks for property-based tests."""

from __future__ import annotations

from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.tiles import run_dense


class SqueezeExcitation(nn.Module):
    """Scale channels by what the whole image holds."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weigh = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Any) -> Any:
        return x * self.weigh(F.adaptive_avg_pool2d(x, 1)).sigmoid()


class Residual(nn.Sequential):
    """Add a block to its input."""

    def forward(self, x: Any) -> Any:
        return x + super().forward(x)


class ChannelsLast(nn.Module):
    """Mix the channels of every sample, channels last."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.mix = nn.Linear(channels, channels)

    def forward(self, x: Any) -> Any:
        return x + self.mix(self.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class Pyramid(nn.Module):
    """Look at the whole map at once."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weigh = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.weigh(F.adaptive_avg_pool2d(x, (2, 3)))
        return x + F.interpolate(pooled, size=x.shape[2:], mode="bilinear", align_corners=False)


class RandomNetwork(nn.Module):
    """An encoder of two strides with random blocks, global context, and a decoder at stride 2 or 4."""

    def __init__(self, source: Random, context: bool = True, pool: bool = True) -> None:
        super().__init__()
        stem: list[nn.Module] = [nn.Conv2d(3, 4, source.choice([3, 5, 7]), 2, padding_mode="zeros")]
        stem[0].padding = (stem[0].kernel_size[0] // 2,) * 2
        if pool:
            average = nn.AvgPool2d(3, 1, 1, count_include_pad=source.random() < 0.5)
            stem.append(source.choice([nn.MaxPool2d(3, 2, 1), average, nn.BatchNorm2d(4)]))
        self.fine = nn.Sequential(*stem, *_blocks(source, 4, context))
        self.coarse = nn.Sequential(nn.Conv2d(4, 8, 3, 2, 1, groups=2), *_blocks(source, 8, context))
        self.context = run_dense(Pyramid(8)) if context else nn.Identity()
        self.head = nn.Conv2d(12, 3, source.choice([1, 3]), padding="same")
        self.by_size, self.corners = source.random() < 0.5, source.random() < 0.5
        self.transposed = nn.ConvTranspose2d(8, 8, 4, 2, 1, groups=2) if source.random() < 0.3 else None
        for norm in self.modules():
            if isinstance(norm, nn.BatchNorm2d):
                for value in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                    nn.init.uniform_(value, 0.5, 1.5)
        self.eval()

    def forward(self, x: Any) -> Any:
        fine = self.fine(x)
        coarse = self.context(self.coarse(fine))
        how: dict[str, Any] = {"mode": "bilinear", "align_corners": self.corners}
        if self.transposed is not None:
            large = self.transposed(coarse)
        elif self.by_size:
            large = F.interpolate(coarse, size=fine.shape[2:], **how)
        else:
            large = F.interpolate(coarse, scale_factor=2, **how)
        return self.head(torch.cat([fine, large[:, :, : fine.shape[2], : fine.shape[3]]], 1))


def _blocks(source: Random, channels: int, context: bool) -> list[nn.Module]:
    kernel, dilation = source.choice([3, 5]), source.choice([1, 2])
    choices = [
        Residual(nn.Conv2d(channels, channels, kernel, 1, dilation * (kernel // 2), dilation)),
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
        nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True)),
        Residual(nn.Conv2d(channels, 2 * channels, 1), nn.Hardswish(), nn.Conv2d(2 * channels, channels, 1)),
        SqueezeExcitation(channels) if context else nn.ReLU6(),
        nn.GroupNorm(2, channels) if context else nn.PReLU(channels),
        ChannelsLast(channels),
    ]
    return source.sample(choices, source.randint(2, 4))
