"""The whole image shrunk before anything is decided: a network may see best at a smaller scale.

What runs on the shrunk image is any method, in any precision, or the dense network where the budget pays for
all of it. Its logits are enlarged again, and labels have the size of the image that came in. Shares of work
stay shares of the dense network's work on the whole image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.geometry.plan import grid
from foveal.methods.base import AdaptiveSegmenter, WrappingMethod, check_shape
from foveal.methods.prediction import Prediction, Trace
from foveal.ops import halve, resize
from foveal.program.settings import enlarged_grid, shrunk_size

if TYPE_CHECKING:
    from foveal.geometry.plan import Plan
    from foveal.methods.config import MethodConfig
    from foveal.tiles.memory import Memory

Size = tuple[int, int]

KEPT = 16
"""Methods that are kept, one for every budget on a shrunk image."""


def pixel_share(size: Size, scale: float) -> float:
    """Return the share of the pixels of an image of `size` [px] that are left at a scale of its sides."""
    return math.prod(shrunk_size(size, scale)) / math.prod(size)


def shrink(image: Tensor, sides: Size) -> Tensor:
    """Shrink images [N, C, H, W] with antialiasing."""
    if tuple(image.shape[2:]) == sides:
        return image
    exact = image if image.dtype in (torch.float32, torch.float64) else image.float()
    return resize(exact, sides).to(image.dtype)


def enlarge_logits(logits: Tensor, size: Size) -> Tensor:
    """Enlarge the logits [N, K, h, w] of a shrunk image to a stride of the image of `size` [px]."""
    grid = enlarged_grid((logits.shape[2], logits.shape[3]), size)
    return F.interpolate(logits, size=grid, mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class Shrinking:
    """A way to shrink an image."""

    name: str
    layout: torch.memory_format
    run: Callable[[Tensor], Tensor]


def shrinking_ways(size: Size, sides: Size) -> list[Shrinking]:
    """List the ways to shrink: antialiased in both layouts, and by means of two by two where that fits."""
    filtered = partial(shrink, sides=sides)
    ways = [
        Shrinking("antialiased", torch.contiguous_format, filtered),
        Shrinking("antialiased, channels last", torch.channels_last, filtered),
    ]
    if (sides[0] * 2, sides[1] * 2) == size:
        ways += [Shrinking("means of 2 x 2, channels last", torch.channels_last, halve)]
        ways += [Shrinking("means of 2 x 2", torch.contiguous_format, halve)]
    return ways


def config_within(config: MethodConfig, size: Size) -> MethodConfig:
    """Return the settings of what runs on the shrunk image of one of `size` [px].

    The budget becomes a share of the dense work on the shrunk image: all of it where it pays for more.
    """
    if config.scale == 1 or not config.adjustable:
        return replace(config, scale=1.0)
    budget = config.budget / pixel_share(size, config.scale)
    return replace(config, scale=1.0, budget=min(1.0, budget))


class ScaledNetwork(nn.Module):
    """A dense network on images shrunk by a scale of their sides, its logits enlarged."""

    def __init__(self, network: nn.Module, scale: float) -> None:
        super().__init__()
        self.network, self.scale = network, scale
        self.in_channels = int(getattr(network, "in_channels", 3))

    def forward(self, image: Tensor) -> Tensor:
        """Map images [N, C, H, W] in 0..1 to logits [N, K, h, w] at a stride of these images."""
        size = image.shape[2], image.shape[3]
        small = shrink(image, shrunk_size(size, self.scale)).contiguous(memory_format=torch.channels_last)
        return enlarge_logits(self.network(small), size)


@runtime_checkable
class Shrinks(Protocol):
    """A method that may shrink images, segment them and enlarge the logits in one call."""

    @property
    def shrinks(self) -> bool:
        """Whether it does."""

    def shrunk(self, image: Tensor, sides: Size) -> Prediction:
        """Segment images [N, C, H, W] shrunk to `sides` [px]; work is a share of that on the shrunk ones."""

    def shrunk_labels(self, image: Tensor, sides: Size) -> Tensor:
        """Return the class per pixel [N, H, W] of the images that came in."""


class ScaledMethod(WrappingMethod):
    """Runs a method on the shrunk image, within the share of the full-size dense work that it has.

    Levels count from the shrunk image: level 0 is full resolution at this scale. `trace.levels` has them on
    the cells of the image that came in, plans on those of the shrunk one.

    Args:
        config: Settings of the method, with the scale and the budget of the whole image.
        make: Makes the method from settings whose scale is 1.
        dense: The dense network, as a method.

    Raises:
        ValueError: The settings do not fit the network.
    """

    def __init__(
        self,
        config: MethodConfig,
        make: Callable[[MethodConfig], AdaptiveSegmenter],
        dense: AdaptiveSegmenter,
    ) -> None:
        super().__init__()
        self.config, self._make, self._dense = config, make, dense
        self.method: AdaptiveSegmenter = make(replace(config, scale=1.0))
        self.network = self.method.network
        self._made: dict[MethodConfig, AdaptiveSegmenter] = {}

    def forward(self, image: Tensor, memory: Memory | None = None) -> Prediction:
        """Segment images [N, C, H, W] in 0..1.

        Raises:
            ValueError: The budget does not pay for the cheapest plan.
        """
        size = check_shape(image, self.network)
        self._check_budget(size)
        inner = self.within(size)
        if isinstance(inner, Shrinks) and inner.shrinks:
            found = inner.shrunk(image, shrunk_size(size, self.config.scale))
            return replace(found, trace=self._trace(found.trace, size))
        return self._returned(inner(self.sent(image), memory), image)

    def labels(self, image: Tensor) -> Tensor:
        """Return the class per pixel [N, H, W], uint8."""
        size = check_shape(image, self.network)
        self._check_budget(size)
        inner = self.within(size)
        if isinstance(inner, Shrinks) and inner.shrinks:
            return inner.shrunk_labels(image, shrunk_size(size, self.config.scale))
        return super().labels(image)

    def masked(self, image: Tensor, wanted: Tensor) -> Prediction:
        """Segment where cells [N, Gh, Gw] of the images are wanted: a tile if any cell that it touches is."""
        size = check_shape(image, self.network)
        sides, tile = shrunk_size(size, self.config.scale), self.config.whole("tile", 1)
        rows, columns = (_overlaps(sides[k], size[k], tile) for k in (0, 1))
        cells = rows @ wanted.to(rows) @ columns.T > 0
        found = self._cached(config_within(self.config, size)).masked(self.sent(image), cells)
        return self._returned(found, image)

    def decide(self, image: Tensor) -> Plan | None:
        """Return the plan for the shrunk images."""
        return self.within(check_shape(image, self.network)).decide(self.sent(image))

    def dense(self) -> nn.Module:
        """Return the dense network on shrunk images: what the method equals when it spends everything."""
        return ScaledNetwork(self._dense.dense(), self.config.scale)

    def least_work(self, size: Size) -> float:
        """Return the least share of the dense work on the whole image, at this budget."""
        sides = shrunk_size(size, self.config.scale)
        return pixel_share(size, self.config.scale) * self.within(size).least_work(sides)

    def within(self, size: Size) -> AdaptiveSegmenter:
        """Return what runs on the shrunk image of one of `size` [px]."""
        inner = config_within(self.config, size)
        return self._dense if inner.is_dense else self._cached(inner)

    def sent(self, image: Tensor) -> Tensor:
        """Return images [N, C, H, W] as the method gets them."""
        sides = shrunk_size((image.shape[2], image.shape[3]), self.config.scale)
        return shrink(image, sides).contiguous(memory_format=torch.channels_last)

    def _cached(self, inner: MethodConfig) -> AdaptiveSegmenter:
        if inner not in self._made:  # images of another size may have another budget within
            if len(self._made) == KEPT:
                del self._made[next(iter(self._made))]
            self._made[inner] = self._make(inner)
        return self._made[inner]

    def _check_budget(self, size: Size) -> None:
        """Refuse in shares of the whole image's work, before the method does in those of the shrunk one."""
        config = self.config
        if config.adjustable and self.least_work(size) > max(config.budget, 0) + 1e-9:
            raise ValueError(
                f"budget is {config.budget:g}, and at scale {config.scale:g} the cheapest plan takes "
                f"{self.least_work(size):.3g} of the dense work on the whole image; raise the budget, or "
                "lower the scale"
            )

    def _returned(self, found: Prediction, image: Tensor) -> Prediction:
        """Bring an answer to the size of the images."""
        size = image.shape[2], image.shape[3]
        logits = enlarge_logits(found.logits.to(image.device), size)
        return Prediction(logits, size, self._trace(found.trace, size), found.memory)

    def _trace(self, trace: Trace, size: Size) -> Trace:
        """Bring the decisions about shrunk images to shares and cells of those of `size` [px]."""
        share, tile = pixel_share(size, self.config.scale), self.config.whole("tile", 1)
        steps = tuple(replace(step, work=step.work * share) for step in trace.steps)
        levels = trace.levels
        if levels is not None:
            levels = _spread(levels, shrunk_size(size, self.config.scale), size, tile)
        return Trace(steps, levels, self.config.scale, trace.routes)


def unscaled(method: AdaptiveSegmenter) -> AdaptiveSegmenter:
    """Return what gets the shrunk images."""
    return method.method if isinstance(method, ScaledMethod) else method


def _overlaps(small: int, large: int, tile: int) -> Tensor:
    """Say which cells of a side of the whole image each of the shrunk one touches [cells, cells], 0 or 1."""
    inner, outer = (torch.arange(-(-side // tile)) * tile for side in (small, large))
    first, last = inner * large / small, (inner + tile).clamp(max=small) * large / small
    return ((outer < last[:, None] - 1e-6) & (outer + tile > first[:, None] + 1e-6)).float()


def _spread(levels: Tensor, sides: Size, size: Size, tile: int) -> Tensor:
    """Return the levels of cells of the shrunk image [N, Gh, Gw] on the cells of the whole one."""
    places = []
    for small, large, cells in zip(sides, size, grid(size, tile), strict=True):
        middle = (torch.arange(cells) * tile + tile / 2).clamp(max=large - 0.5) * small / large
        places.append((middle / tile).long())
    return levels[:, places[0]][:, :, places[1]]
