"""Small networks, images and data sets for the tests of policies, methods and loops."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.data.synthetic import CLASSES, street
from foveal.models import SegmentationNetwork, create_model
from foveal.models.lattice import LatticeNetwork
from foveal.models.resnet import BasicBlock
from foveal.models.swiftnet import SwiftNetHead


def headless(classes: int = 5, dropout: float = 0.0) -> nn.Sequential:
    """Make a network of stride 4 without global context."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, 2, 1),
        nn.Dropout(dropout),
        nn.ReLU(),
        nn.Conv2d(8, classes, 3, padding=1),
    ).eval()


def tower(classes: int = 5) -> nn.Sequential:
    """Make a network of stride 16 without global context, most of which comes after its strides 4 and 8."""
    widths = (3, 8, 16, 64, 128)
    layers: list[nn.Module] = []
    for incoming, width in pairwise(widths):
        layers.append(nn.Sequential(nn.Conv2d(incoming, width, 3, 2, 1), nn.ReLU()))
    for _ in range(3):
        layers.append(nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU()))
    return nn.Sequential(*layers, nn.Conv2d(width, classes, 1)).eval()


class Ladder(nn.Module):
    """A light encoder down to stride 16, and a heavy decoder at stride 4, without global context."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.early = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU())
        self.lateral, self.bridge = nn.Conv2d(8, 32, 1), nn.Conv2d(16, 32, 1)
        self.blend = nn.Sequential(
            nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1)
        )
        self.classify = nn.Conv2d(32, classes, 1)

    def forward(self, image: Any) -> Any:
        fine = self.early(image)
        coarse = F.interpolate(self.bridge(self.deep(fine)), scale_factor=4, mode="bilinear")
        return self.classify(self.blend(self.lateral(fine) + coarse[:, :, : fine.shape[2], : fine.shape[3]]))


def ladder(classes: int = 5) -> Ladder:
    """Make a network most of which is its decoder."""
    return Ladder(classes).eval()


def lattice(classes: int = 5) -> LatticeNetwork:
    """Make a small lattice, its norms not at their start."""
    made: LatticeNetwork = shaken(LatticeNetwork(5, 32, classes)).eval()
    return made


class Blocks(nn.Module):
    """An encoder of two cheap convolutions and basic blocks at strides 8 and 16."""

    channels, strides = (32, 64), (8, 16)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_reducing(3, 8), *_reducing(8, 16))
        self.fine = nn.Sequential(BasicBlock(16, 32, 2), BasicBlock(32, 32, 1), BasicBlock(32, 32, 1))
        self.coarse = nn.Sequential(BasicBlock(32, 64, 2), BasicBlock(64, 64, 1))

    def forward(self, image: Tensor) -> list[Tensor]:
        fine = self.fine(self.stem(image))
        return [fine, self.coarse(fine)]


def _reducing(incoming: int, outgoing: int) -> list[nn.Module]:
    layer = nn.Conv2d(incoming, outgoing, 3, 2, 1, bias=False)
    return [layer, nn.BatchNorm2d(outgoing), nn.ReLU()]


def residual(classes: int = 5) -> SegmentationNetwork:
    """Make a network with global context, four fifths of which are branches of residual units."""
    head = SwiftNetHead(Blocks.channels, classes, width=24)
    return shaken(SegmentationNetwork(Blocks(), head, classes)).eval()


def residual_tower(classes: int = 5) -> nn.Sequential:
    """Make a network of stride 4 without global context, nine tenths of it branches of residual units."""
    stem = [*_reducing(3, 8), *_reducing(8, 16)]
    blocks = [BasicBlock(16, 16, 1) for _ in range(4)]
    return shaken(nn.Sequential(*stem, *blocks, nn.Conv2d(16, classes, 1))).eval()


def nano(classes: int = 5) -> SegmentationNetwork:
    """Make the smallest network of the table, its norms not at their start."""
    return shaken(create_model("swiftnet_nano", classes)).eval()


def shaken(network: Any) -> Any:
    """Give every norm other statistics, scales and shifts."""
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for value, low, high in (
                (norm.weight, 0.5, 1.5),
                (norm.bias, -0.5, 0.5),
                (norm.running_mean, -0.5, 0.5),
                (norm.running_var, 0.5, 1.5),
            ):
                nn.init.uniform_(value, low, high)
    return network


@torch.no_grad()
def lively(network: Any, image: Tensor) -> Any:
    """Let a random network give the places of an image [3, H, W] different classes."""
    last = [module for module in network.modules() if isinstance(module, nn.Conv2d)][-1]
    last.weight.mul_(10)
    last.bias.sub_(network(image[None]).mean((0, 2, 3)))
    return network


_street = cache(street)


class Scenes:
    """A few street scenes in memory."""

    classes = CLASSES

    def __init__(self, count: int, size: tuple[int, int] = (48, 64)) -> None:
        self.items = [_street(seed, size) for seed in range(count)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.items[index]


def write_folder(root: Path, count: int, size: tuple[int, int] = (64, 96)) -> Path:
    """Write street scenes as a plain folder of images and masks."""
    for seed in range(count):
        image, labels = street(seed, size)
        if seed == 0:
            labels[0, : len(CLASSES)] = torch.arange(len(CLASSES))
        for name, picture in (
            ("images", (image * 255).round().byte().permute(1, 2, 0)),
            ("masks", labels),
        ):
            path = root / name / f"{seed}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture.contiguous().numpy()).save(path)
    return root


def error_of(run: Callable[[], Any]) -> str:
    """Message of the ValueError that a call raises; empty if it raises none."""
    try:
        run()
    except ValueError as error:
        return str(error)
    return ""


def assert_same(found: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    """Compare results in double precision, and their slopes if they have any."""
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    if not expected.requires_grad:
        return
    weight = torch.randn_like(expected)
    slopes = [
        torch.autograd.grad(y, inputs, weight, allow_unused=True, materialize_grads=True)
        for y in (found, expected)
    ]
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-12)
