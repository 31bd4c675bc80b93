"""Convolve a map, with everything that networks do around a convolution.

Before it, every channel may be scaled, shifted and clamped (a BatchNorm and its activation); after it, a
bias and a scaled residual are added and the sum is clamped (BatchNorm folded, shortcut, activation). On
tiles, windows reach into the neighbours by the rule of `fetch_halo`; samples outside the image count as 0,
after what comes before the convolution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from foveal.geometry.layout import Halo

MOST_SHIFT = 1e4
"""Largest input that may stand for 0; a larger one would cost precision."""


@dataclass(frozen=True, eq=False)
class Before:
    """What happens to the input: clamp(scale * x + shift, low, high).

    Attributes:
        scale: Per channel [C].
        shift: Per channel [C].
        low: Smallest value.
        high: Largest value.
    """

    scale: Tensor
    shift: Tensor
    low: float = -math.inf
    high: float = math.inf

    @property
    def parts(self) -> tuple[Tensor, Tensor, float, float]:
        """Scale, shift, low and high."""
        return self.scale, self.shift, self.low, self.high

    @cached_property
    def linear(self) -> bool:
        """Whether nothing is clamped, and the input that becomes 0 is a number of ordinary size."""
        ordinary = (self.shift.double() / self.scale.double()).abs() < MOST_SHIFT
        return (self.low, self.high) == (-math.inf, math.inf) and bool(ordinary.all())

    def __call__(self, x: Tensor) -> Tensor:
        """Apply to a map [B, C, H, W]."""
        x = x * self.scale.view(1, -1, 1, 1) + self.shift.view(1, -1, 1, 1)
        return x if (self.low, self.high) == (-math.inf, math.inf) else x.clamp(self.low, self.high)


@dataclass(frozen=True, eq=False)
class Convolution:
    """A convolution with its surroundings.

    Attributes:
        weight: [O, C / groups, rows, columns].
        bias: [O], or None.
        stride: Of the window, the same on both axes.
        padding: Zeros before the map (top, left). Behind it there are as many as keep ceil(side / stride).
        dilation: Of the window, the same on both axes.
        groups: Groups of channels.
        before: What happens to the input.
        residual_scale: Factor of the residual per output [O]; None for 1.
        low: Smallest output.
        high: Largest output.
    """

    weight: Tensor
    bias: Tensor | None = None
    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    dilation: int = 1
    groups: int = 1
    before: Before | None = None
    residual_scale: Tensor | None = None
    low: float = -math.inf
    high: float = math.inf
    _packed: dict[str, Any] = field(default_factory=dict, repr=False)
    _chosen: dict[Any, str] = field(default_factory=dict, repr=False)

    @cached_property
    def kernel(self) -> tuple[int, int]:
        """Rows and columns of the window."""
        return self.weight.shape[2], self.weight.shape[3]

    @cached_property
    def halo(self) -> Halo:
        """Samples that windows reach beyond a tile."""
        top, left = self.padding
        bottom, right = (
            max(0, self.dilation * (k - 1) - p - (self.stride - 1))
            for k, p in zip(self.kernel, self.padding, strict=True)
        )
        return Halo(left, right, top, bottom)

    @cached_property
    def depthwise(self) -> bool:
        """Whether every channel has its own window."""
        return self.groups == len(self.weight) == self.groups * self.weight.shape[1]

    def finish(self, x: Tensor, residual: Tensor | None) -> Tensor:
        """Add the residual and clamp."""
        if residual is not None:
            scale = self.residual_scale
            x = x + (residual if scale is None else residual * scale.view(1, -1, 1, 1))
        return x if (self.low, self.high) == (-math.inf, math.inf) else x.clamp(self.low, self.high)
