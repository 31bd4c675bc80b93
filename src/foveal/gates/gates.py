"""What decides where residual units are computed: a small gate per unit, that sees the map the unit is given.

Source: Verelst and Tuytelaars, "Dynamic Convolutions: Exploiting Spatial Sparsity for Faster Inference",
CVPR 2020, section 3.1 (the squeeze unit: a 3x3 convolution and a product with the mean of the map, added).
Differs: gates end with a BatchNorm of one channel, so that a share of the positions is open from the start
whatever the map's numbers are. The paper's authors advise a norm there for stable training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.gates.units import Unit
from foveal.storage.schema import Name

MOST_CHANNELS, MOST_UNITS, MOST_SIDE = 65536, 4096, 64
"""More would take gigabytes before anything runs."""
KERNEL = 3
"""Rows and columns of the window of a squeeze gate."""
OPEN, SPREAD = 0.5, 3.0
"""Share of the positions that fresh gates open, where nobody says another; deviation of their logits: more
than that of the noise in training (1.8), or masks would be noise at first, and dilated ones full."""


@dataclass(frozen=True)
class GateConfig:
    """A gate.

    Attributes:
        unit: The residual unit that it is of.
        channels: Channels of the map that it sees.
        stride: Samples of that map per sample of the unit's result, along a side.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    unit: Name
    channels: Annotated[int, Field(ge=1, le=MOST_CHANNELS)]
    stride: Annotated[int, Field(ge=1, le=64)] = 1


@dataclass(frozen=True)
class GatesConfig:
    """The gates of a network.

    Attributes:
        units: A gate per residual unit, in the order in which they run.
        kind: squeeze, a 3x3 convolution and the mean of the map; or pointwise, a 1x1 convolution.
        side: Positions on the side of a square that is decided as one; 1 for single positions.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    units: Annotated[tuple[GateConfig, ...], Field(min_length=1, max_length=MOST_UNITS)]
    kind: Literal["squeeze", "pointwise"] = "squeeze"
    side: Annotated[int, Field(ge=1, le=MOST_SIDE)] = 1


class Gate(nn.Module):
    """Maps the input of a unit [N, C, h, w] to a logit per position of its result: above 0 it is computed.

    Args:
        config: What it sees.
        kind: squeeze or pointwise.
        share: Of the positions that are open before it has learned.
    """

    def __init__(self, config: GateConfig, kind: str, share: float = OPEN) -> None:
        super().__init__()
        kernel = KERNEL if kind == "squeeze" else 1
        self.stride = config.stride
        self.window = nn.Conv2d(config.channels, 1, kernel, config.stride, kernel // 2, bias=False)
        self.mean = nn.Conv2d(config.channels, 1, 1, bias=False) if kind == "squeeze" else None
        self.norm = nn.BatchNorm2d(1)
        if not self.norm.weight.is_meta:
            nn.init.constant_(self.norm.weight, SPREAD)
            nn.init.constant_(self.norm.bias, SPREAD * float(torch.special.ndtri(torch.tensor(share))))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [N, h / stride, w / stride], sides rounded up."""
        found = self.window(x) if self.mean is None else self._squeezed(x, self.mean.weight)
        logits: Tensor = self.norm(found)[:, 0]
        return logits

    def _squeezed(self, x: Tensor, mean: Tensor) -> Tensor:
        """Return the sum of the 3x3 window's result and a product with the mean of the map.

        Every sample has ten products: nine are shifted and added up, the mean is taken of the tenth. That
        reads the map once, where a convolution to a single channel takes ten times as long.
        """
        height, width = x.shape[2:]
        weight = torch.cat([self.window.weight.flatten(2)[0].t(), mean.flatten(1)])[:, :, None, None]
        found = F.conv2d(x, weight).contiguous(memory_format=torch.contiguous_format)
        wide = F.pad(found[:, :-1], (1, 1, 1, 1))
        total = found[:, -1].mean((1, 2), keepdim=True).expand(-1, height, width).clone()
        for tap in range(KERNEL**2):
            row, column = divmod(tap, KERNEL)
            total += wide[:, tap, row : row + height, column : column + width]
        return total[:, None, :: self.stride, :: self.stride]


class Gates(nn.Module):
    """The gates of a network; they belong to its weights.

    Args:
        config: Units, kind of gate, and size of what is decided as one.
        share: Of the positions that are open before they have learned.

    Attributes:
        used: Share of every unit's work that the gates were seen to want in training [units].
    """

    used: Tensor

    def __init__(self, config: GatesConfig, share: float = OPEN) -> None:
        super().__init__()
        self.config = config
        self.gates = nn.ModuleList(Gate(gate, config.kind, share) for gate in config.units)
        self.register_buffer("used", torch.ones(len(config.units)))

    @classmethod
    def of(
        cls,
        units: Sequence[Unit],
        kind: Literal["squeeze", "pointwise"] = "squeeze",
        side: int = 1,
        share: float = OPEN,
        seed: int = 0,
    ) -> Gates:
        """Make fresh gates for the units of a network."""
        config = GatesConfig(tuple(GateConfig(u.name, u.channels, u.stride) for u in units), kind, side)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return cls(config, share)

    def logits(self, number: int, x: Tensor, side: int | None = None) -> Tensor:
        """Return the logits of a unit by its number, from its input [N, C, h, w].

        They are alike in every square, of `side` positions a side if it is given.
        """
        found: Tensor = self.gates[number](x)
        return squared(found, side or self.config.side)

    def macs(self, units: Sequence[Unit]) -> int:
        """Count the multiply-accumulates of all gates in an image of the traced size [MAC]."""
        products = KERNEL**2 + 1 if self.config.kind == "squeeze" else 1
        return sum(
            gate.channels * products * unit.layers[-1].places * (unit.stride**2 if products > 1 else 1)
            for gate, unit in zip(self.config.units, units, strict=True)
        )

    def check_fit(self, units: Sequence[Unit]) -> None:
        """Refuse gates that are of another network.

        Raises:
            ValueError: They are of other units, or take maps of other channels.
        """
        ours = [(gate.unit, gate.channels, gate.stride) for gate in self.config.units]
        theirs = [(unit.name, unit.channels, unit.stride) for unit in units]
        if ours != theirs:
            strange = next((a for a, b in zip(ours, theirs, strict=False) if a != b), ours[-1])
            raise ValueError(
                f"the gates are of {len(ours)} units, such as {strange[0]} of {strange[1]} channels, and the "
                f"network has {len(theirs)} others; give gates that were trained with it"
            )


def squared(values: Tensor, side: int) -> Tensor:
    """Replace values [N, h, w] by their means over squares of a side."""
    if side == 1:
        return values
    means = F.avg_pool2d(values[:, None], side, ceil_mode=True, count_include_pad=False)[:, 0]
    return spread(means, side, (values.shape[1], values.shape[2]))


def spread(values: Tensor, side: int, size: tuple[int, int]) -> Tensor:
    """Spread values of squares over the positions [N, h, w] in them."""
    wide = values.repeat_interleave(side, 1).repeat_interleave(side, 2)
    return wide[:, : size[0], : size[1]]
