"""Convolve a map, with everything that networks do around a convolution.

Before it, every channel may be scaled, shifted and clamped (a BatchNorm and its activation); after it, a
bias and a scaled residual are added and the sum is clamped (BatchNorm folded, shortcut, activation). On
tiles, windows reach into the neighbours by the rule of `fetch_halo`; samples outside the image count as 0,
after what comes before the convolution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from torch import Tensor

from foveal.geometry.layout import Halo, Layout
from foveal.ops.tiles import check_tiles

T = TypeVar("T")

MOST_SHIFT = 1e4
"""Largest input that may stand for 0; a larger one would cost precision."""


@dataclass(frozen=True, eq=False)
class Prologue:
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
        prologue: What happens to the input.
        residual_scale: Factor of the residual per output [O]; None for 1.
        low: Smallest output.
        high: Largest output.

    Raises:
        ValueError: Numbers do not belong to as many outputs or channels as the weights have, or a stride,
            dilation or padding makes no sense.
    """

    weight: Tensor
    bias: Tensor | None = None
    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    dilation: int = 1
    groups: int = 1
    prologue: Prologue | None = None
    residual_scale: Tensor | None = None
    low: float = -math.inf
    high: float = math.inf
    _prepared: dict[Hashable, Any] = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.weight.ndim != 4 or self.groups < 1 or len(self.weight) % self.groups:
            raise ValueError(
                f"the weights are {list(self.weight.shape)} with {self.groups} groups; give "
                "[O, C / groups, rows, columns], O a multiple of the groups"
            )
        if min(self.stride, self.dilation) < 1 or min(self.padding) < 0:
            raise ValueError(
                f"stride is {self.stride}, dilation {self.dilation} and padding {self.padding}; give at "
                "least 1, 1 and 0"
            )
        reach = [self.dilation * (k - 1) for k in self.kernel]
        if any(p > r for p, r in zip(self.padding, reach, strict=True)):
            raise ValueError(
                f"padding is {self.padding} and windows of {self.kernel} reach over {tuple(reach)} samples; "
                "give at most that: windows beyond the map see none of it"
            )
        for what, values in (("bias", self.bias), ("residual_scale", self.residual_scale)):
            if values is not None and values.shape != self.weight.shape[:1]:
                raise ValueError(
                    f"{what} is {list(values.shape)}; {len(self.weight)} outputs need [{len(self.weight)}]"
                )
        for values in () if self.prologue is None else (self.prologue.scale, self.prologue.shift):
            if values.shape != (self.channels,):
                raise ValueError(
                    f"the prologue has numbers of {list(values.shape)}; {self.channels} channels need "
                    f"[{self.channels}]"
                )

    def prepared(self, key: Hashable, build: Callable[[], T]) -> T:
        """Return what follows from the convolution alone, such as weights in another order; built once.

        A copy by `dataclasses.replace` starts without any: so does one whose numbers were changed in place.
        """
        if key not in self._prepared:
            self._prepared[key] = build()
        value: T = self._prepared[key]
        return value

    @cached_property
    def channels(self) -> int:
        """Channels C that it takes."""
        return self.weight.shape[1] * self.groups

    @cached_property
    def outputs(self) -> int:
        """Channels O that it gives."""
        return len(self.weight)

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


def check(
    x: Tensor,
    layout: Layout | None,
    convolution: Convolution,
    residual: Tensor | None = None,
    kept: Tensor | None = None,
) -> None:
    """Refuse maps that do not belong to the layout or to the convolution.

    Raises:
        ValueError: Another number or shape of tiles or kept tiles, tiles that the stride does not divide,
            another number of channels than the convolution takes, or a residual of another shape than the
            result.
    """
    c, shape = convolution, x.shape
    if layout is not None:
        side = check_tiles(x, layout, layout.computed, kept, not c.halo.empty)
        if side % c.stride:
            raise ValueError(
                f"the tiles have {side} samples a side, which the stride {c.stride} does not divide; give a "
                "larger tile"
            )
    elif len(shape) != 4 or kept is not None:
        raise ValueError(f"a dense map is [N, C, H, W] and has no kept tiles; given {list(shape)}")
    if shape[1] != c.channels:
        raise ValueError(f"the map has {shape[1]} channels, the convolution takes {c.channels}")
    if residual is not None and residual.shape != (result := result_shape(x, c)):
        raise ValueError(
            f"the residual is {list(residual.shape)} and the result {list(result)}; a network that adds maps "
            "of different sizes needs an image whose sides are multiples of its stride"
        )


def result_shape(x: Tensor, c: Convolution) -> tuple[int, ...]:
    """Shape of the result [B, O, ceil(H / stride), ceil(W / stride)]."""
    images, _, height, width = x.shape
    return images, c.outputs, -(-height // c.stride), -(-width // c.stride)
