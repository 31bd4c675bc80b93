"""The soft conditional gates of a lattice: from the map of a cell to a weight for every path out of it.

Source: the soft conditional gate of Li et al., CVPR 2020: weight = max(0, tanh(gate)). Its public code has
the bias of 1.5, which opens all paths at first, and gates on maps reduced by 4, as of Dynamic-A, B and C.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from foveal.models.lattice import WAYS, LatticeShape, Weights
from foveal.routes.costs import shrunk
from foveal.routes.route import CLOSED

OPEN = 1.5
"""Bias of a fresh gate; its paths weigh tanh 1.5 = 0.905."""
SPREAD = 0.01
"""Deviation of the other weights of its last layer: at first the images hardly matter."""


class Asking(Protocol):
    """Weighs the paths out of a cell."""

    def __call__(self, layer: int, scale: int, x: Tensor) -> Tensor:
        """Return weights [N, paths] for the maps [N, C, h, w] that a cell is given."""
        ...


class Router(nn.Module):
    """A gate for every cell of a lattice.

    Args:
        layers: Layers of the lattice after its initial cell.
        width: Its channels at stride 4.
        small: 1 if gates look at maps reduced by 4, which costs a sixteenth; 0 for whole maps.

    Raises:
        ValueError: There is no such lattice.
    """

    def __init__(self, layers: int, width: int, small: int = 1) -> None:
        super().__init__()
        self.shape, self.small = LatticeShape(layers, width, 1), bool(small)
        self.config = {"layers": layers, "width": width, "small": int(self.small)}
        self.gates = nn.ModuleList(
            nn.ModuleList(
                Gate(self.shape.channels(scale), len(self.shape.ways(layer, scale)))
                for scale in range(self.shape.scales(layer))
            )
            for layer in range(layers + 1)
        )

    @classmethod
    def fresh(
        cls, shape: LatticeShape, small: bool = True, seed: int = 0, like: Tensor | None = None
    ) -> Router:
        """Make gates that nobody has trained, all paths open.

        Args:
            shape: The lattice.
            small: Whether gates look at reduced maps.
            seed: Of the weights.
            like: Weights of the network, for precision and device.
        """
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made = cls(shape.layers, shape.width, int(small))
        return made if like is None else made.to(like)

    def check_fit(self, shape: LatticeShape) -> None:
        """Refuse gates that are of another lattice.

        Raises:
            ValueError: They are.
        """
        if (self.shape.layers, self.shape.width) != (shape.layers, shape.width):
            raise ValueError(
                f"the router is for {self.shape.layers} layers of width {self.shape.width}, the network has "
                f"{shape.layers} of {shape.width}; give the two that were trained together"
            )

    def forward(self, layer: int, scale: int, x: Tensor) -> Tensor:
        """Return the weights [N, paths] of the paths out of a cell that is given a map [N, C, h, w]."""
        if self.small:
            sides = shrunk((x.shape[2], x.shape[3]))
            x = F.interpolate(x, sides, mode="bilinear", align_corners=False)
        found: Tensor = self.gates[layer][scale](x)  # type: ignore[index]
        return found


class Gate(nn.Module):
    """A 1x1 convolution, the mean over the map, and a weight per path.

    Args:
        channels: Of the map.
        paths: Number of weights.
    """

    def __init__(self, channels: int, paths: int) -> None:
        super().__init__()
        inner = channels // 2
        self.squeeze = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU()
        )
        self.weigh = nn.Conv2d(inner, paths, 1)
        nn.init.normal_(self.weigh.weight, std=SPREAD)
        nn.init.constant_(self.weigh.bias, OPEN)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, h, w] to weights [N, paths] from 0 to 1."""
        mean = self.squeeze(x).mean((2, 3), keepdim=True)
        return torch.relu(torch.tanh(self.weigh(mean).flatten(1)))


class Chance:
    """Weighs paths at random, those that a network usually closes apart.

    Args:
        shape: The lattice.
        usual: Usual weights of its paths.
        seed: Of what is drawn.
    """

    def __init__(self, shape: LatticeShape, usual: Weights, seed: int) -> None:
        self._shape, self._usual = shape, usual
        self._generator = Generator().manual_seed(seed)

    def __call__(self, layer: int, scale: int, x: Tensor) -> Tensor:
        """Return numbers above 0 and up to 1 [1, paths], 0 for closed paths."""
        there = self._shape.ways(layer, scale)
        opens = [w >= CLOSED for way, w in zip(WAYS, self._usual[layer][scale], strict=False) if way in there]
        drawn = 1 - 0.99 * torch.rand(1, len(there), generator=self._generator)
        return drawn * torch.tensor([opens])
