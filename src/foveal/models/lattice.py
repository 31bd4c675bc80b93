"""A lattice of layers and scales: every cell hands its map on to the next layer, finer, alike and coarser.

Source: Li et al., "Learning Dynamic Routing for Semantic Segmentation", CVPR 2020, section 3.4: stem, cells,
transforms and decoder. All paths are open here, with the weight 1 until somebody else finds better ones.
Its stem pads, so that maps have ceil(side / stride) samples; its initial cell has the one path more that
leads to stride 8.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.models.network import SegmentationNetwork

WAYS = ("up", "keep", "down")
"""Paths out of a cell: to the finer scale, the same and the coarser one of the next layer."""
SCALES = 4
"""Maps of a layer, at strides 4, 8, 16 and 32."""
FEWEST, MOST, WIDEST = 3, 64, 512
"""Layers that a lattice needs for its four scales; most layers, and most channels at stride 4."""

Weights = tuple[tuple[tuple[float, ...], ...], ...]
"""A weight per layer, scale and way; one more number of a cell says how much of its input it hands on."""


@dataclass(frozen=True)
class LatticeShape:
    """Which cells and paths a lattice has.

    Attributes:
        layers: Layers of cells after the initial cell, which is layer 0.
        width: Channels at stride 4; a coarser scale has twice as many.
        classes: Logits K.

    Raises:
        ValueError: There is no such lattice.
    """

    layers: int
    width: int
    classes: int

    def __post_init__(self) -> None:
        if not FEWEST <= self.layers <= MOST:
            raise ValueError(f"a lattice has {FEWEST} to {MOST} layers, given {self.layers}")
        if not 2 <= self.width <= WIDEST or self.width % 2:
            raise ValueError(
                f"a lattice has an even number of channels, 2 to {WIDEST}, at stride 4, given {self.width}"
            )

    def scales(self, layer: int) -> int:
        """Count the cells of a layer."""
        return min(layer + 1, SCALES)

    def channels(self, scale: int) -> int:
        """Return the channels of a scale, from 0 for stride 4."""
        return self.width << scale

    def ways(self, layer: int, scale: int) -> tuple[str, ...]:
        """Return the paths out of a cell; the last layer only hands its maps to the decoder."""
        ends = layer == self.layers
        there = {"up": scale > 0 and not ends, "keep": True, "down": scale < SCALES - 1 and not ends}
        return tuple(way for way in WAYS if there[way])

    @cached_property
    def cells(self) -> tuple[tuple[int, int], ...]:
        """Layer and scale of every cell, in the order in which they run."""
        return tuple(
            (layer, scale) for layer in range(self.layers + 1) for scale in range(self.scales(layer))
        )

    @cached_property
    def all_open(self) -> Weights:
        """The weights of a lattice in which every path is open, and no cell hands its input on."""
        return tuple(
            tuple(
                (*(float(way in self.ways(layer, scale)) for way in WAYS), 0.0)
                if scale < self.scales(layer)
                else (0.0,) * (len(WAYS) + 1)
                for scale in range(SCALES)
            )
            for layer in range(self.layers + 1)
        )


class Cell(nn.Module):
    """What a cell computes, and the transforms of its map for the next layer.

    Args:
        channels: Of its map.
        ways: Paths out of it.
    """

    def __init__(self, channels: int, ways: tuple[str, ...]) -> None:
        super().__init__()
        self.body = Body(channels)
        if "up" in ways:
            self.up = nn.Sequential(*_normed(nn.Conv2d(channels, channels // 2, 1, bias=False)))
        if "down" in ways:
            self.down = nn.Sequential(*_normed(nn.Conv2d(channels, 2 * channels, 1, 2, bias=False)))


class Body(nn.Module):
    """Two separable convolutions beside a shortcut; every transform begins with the activation at the end."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        last = _separable(channels)[:-1]
        self.separable = nn.Sequential(*_separable(channels), *last)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, h, w] to [N, C, h, w]."""
        return F.relu(self.separable(x) + x)


class LatticeEncoder(nn.Module):
    """Stem and cells: from normalised images to a map per scale.

    Args:
        shape: Which cells and paths there are.

    Attributes:
        channels, strides: Of every returned map, finest first.
        path_weights: Weight of every path as numbers; all paths are computed whatever it is.
    """

    usual: Tensor

    def __init__(self, shape: LatticeShape) -> None:
        super().__init__()
        width = shape.width
        first = nn.Conv2d(3, width, 3, 2, 1, bias=False)
        self.stem = nn.Sequential(*_normed(first), *_separable(width), *_separable(width, 2))
        self.layers = nn.ModuleList(
            nn.ModuleList(Cell(shape.channels(s), shape.ways(layer, s)) for s in range(shape.scales(layer)))
            for layer in range(shape.layers + 1)
        )
        self.channels = tuple(shape.channels(scale) for scale in range(SCALES))
        self.strides = tuple(4 << scale for scale in range(SCALES))
        self.path_weights = shape.all_open
        self.register_buffer("usual", torch.tensor(shape.all_open))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map normalised images [N, C, H, W] to maps [N, C, H / stride, W / stride], sides rounded up."""
        maps = [self.stem(image)]
        for cells, weights in zip(self.layers, self.path_weights, strict=True):
            maps = self._layer(cells, maps, weights)
        return maps

    def _layer(self, cells: Any, maps: list[Tensor], weights: tuple[tuple[float, ...], ...]) -> list[Tensor]:
        """Return what arrives at the next layer, or at the decoder."""
        arriving: list[list[Tensor]] = [[] for _ in range(len(maps) + 1)]
        for scale, (cell, x, (up, keep, down, skip)) in enumerate(zip(cells, maps, weights, strict=False)):
            out = cell.body(x)
            if hasattr(cell, "down"):
                arriving[scale + 1].append(scaled(cell.down(out), down))
            arriving[scale].append(scaled(out, keep))
            if skip:
                arriving[scale].append(scaled(x, skip))
            if hasattr(cell, "up"):
                finer = maps[scale - 1].shape
                arriving[scale - 1].append(scaled(doubled(cell.up(out), finer[2], finer[3]), up))
        return [joined(parts) for parts in arriving if parts]

    def set_weights(self, weights: Tensor) -> None:
        """Take the weight of every path [layers + 1, scales, 4]."""
        with torch.no_grad():
            self.usual.copy_(weights)
        self._take()

    def _take(self) -> None:
        if self.usual.device.type != "meta":
            cells: list[list[list[float]]] = self.usual.double().tolist()
            self.path_weights = tuple(tuple(tuple(cell) for cell in layer) for layer in cells)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """Load the weights of paths as numbers too."""
        super()._load_from_state_dict(*args, **kwargs)
        self._take()


class LatticeHead(nn.Module):
    """From the coarsest map to the finest: halve the channels, enlarge, add; then a 3x3 classifier.

    Args:
        shape: Whose maps it takes.
    """

    def __init__(self, shape: LatticeShape) -> None:
        super().__init__()
        widths = [(shape.channels(s), shape.channels(max(0, s - 1))) for s in range(SCALES)]
        self.units = nn.ModuleList(nn.Sequential(*_normed(nn.Conv2d(c, n, 1, bias=False))) for c, n in widths)
        self.classify = nn.Sequential(nn.Conv2d(shape.width, shape.classes, 3, padding=1))

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map a map per scale to logits [N, K, h, w] at stride 4."""
        x = self.units[-1](maps[-1])
        for unit, finer in reversed(list(zip(self.units, maps[:-1], strict=False))):
            x = unit(doubled(x, finer.shape[2], finer.shape[3]) + finer)
        return self.classify(x)


class LatticeNetwork(SegmentationNetwork):
    """A lattice with all paths open.

    Args:
        layers: Layers of cells after the initial one.
        width: Channels at stride 4.
        classes: Logits K.

    Attributes:
        lattice: Which cells and paths it has.
        separate_modules: Names of the submodules that others call one by one.
    """

    def __init__(self, layers: int, width: int, classes: int) -> None:
        shape = LatticeShape(layers, width, classes)
        super().__init__(LatticeEncoder(shape), LatticeHead(shape), classes)
        self.lattice, self.dense_modules = shape, ()
        cells = [f"encoder.layers.{layer}.{scale}" for layer, scale in shape.cells]
        ways = [("body", *(w for w in shape.ways(*cell) if w != "keep")) for cell in shape.cells]
        self.separate_modules = (
            "encoder.stem",
            *(f"{cell}.{name}" for cell, names in zip(cells, ways, strict=True) for name in names),
            *(f"head.units.{scale}" for scale in range(SCALES)),
            "head.classify",
        )

    @property
    def path_weights(self) -> Weights:
        """Weight of every path, and how much of its input a cell hands on."""
        found: Weights = self.encoder.path_weights  # type: ignore[assignment]
        return found


def scaled(x: Tensor, weight: Any) -> Tensor:
    """Multiply a map by a weight, unless that is 1."""
    return x if isinstance(weight, float) and weight == 1 else x * weight


def doubled(x: Tensor, height: Any, width: Any) -> Tensor:
    """Enlarge a map bilinearly by exactly 2, and crop it to the sides of the finer one."""
    x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    return x[:, :, :height, :width]


def joined(parts: list[Tensor]) -> Tensor:
    """Add up what arrives at a cell, in order."""
    return reduce(operator.add, parts)


def _normed(convolution: nn.Conv2d) -> list[nn.Module]:
    return [convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU()]


def _separable(channels: int, stride: int = 1) -> list[nn.Module]:
    """Make a depthwise 3x3 and a 1x1 convolution, a norm and an activation."""
    depthwise = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
    return [depthwise, *_normed(nn.Conv2d(channels, channels, 1, bias=False))]
