"""A network that sees stripes of 4 px, and images with stripes of 8 px: it sees best at half the scale."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from foveal.data.pairs import default_palette
from foveal.hub.card import Card
from foveal.hub.checkpoint import Model

CLASSES = ("plain", "striped")
SIZE = (128, 192)
TAPS = 8


class StripeNetwork(nn.Sequential):
    """Says class 1 where there are upright stripes of `period` [px], class 0 elsewhere; stride 4."""

    stride = coarsest_stride = 4
    in_channels = 3

    def __init__(self, period: int = 4) -> None:
        waves = nn.Conv2d(3, 4, TAPS + 1, padding=TAPS // 2, bias=False)
        mean = nn.Conv2d(4, 2, 9, 4, 4)
        super().__init__(waves, nn.ReLU(), mean)
        phase = 2 * math.pi * torch.arange(TAPS) / period
        filters = torch.stack([phase.cos(), -phase.cos(), phase.sin(), -phase.sin()])
        with torch.no_grad():
            waves.weight.zero_()
            waves.weight[:, :, TAPS // 2, :TAPS] = filters[:, None] / (3 * TAPS)
            mean.weight.zero_()
            mean.weight[1] = 1 / 81
            mean.bias.copy_(torch.tensor([0.08, 0.0]))
        self.eval()


def scene(seed: int, size: tuple[int, int] = SIZE) -> tuple[Tensor, Tensor]:
    """Draw a grey image [3, H, W] with a striped rectangle, and its labels [H, W]."""
    draw = torch.Generator().manual_seed(seed)
    image = 0.5 + 0.02 * torch.randn(1, *size, generator=draw).expand(3, *size)
    top, left = (int(torch.randint(8, side // 3, (1,), generator=draw)) for side in size)
    labels = torch.zeros(size, dtype=torch.uint8)
    labels[top : top + size[0] // 2, left : left + size[1] // 2] = 1
    wave = 0.4 * torch.sin(2 * math.pi * torch.arange(size[1]) / 8)
    return (image + labels * wave).clamp(0, 1), labels


class Stripes:
    """Labelled images in memory."""

    name, classes = "stripes/val", CLASSES

    def __init__(self, count: int) -> None:
        self.items = [scene(seed) for seed in range(count)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.items[index]


def stripe_model() -> Model:
    """Make the network with a card."""
    card = Card("swiftnet_nano", CLASSES, default_palette(2), 16, 2, 2)
    return Model("stripes", StripeNetwork(), card)  # type: ignore[arg-type]
