"""Images of any size for networks that take only some: padded before, cropped after, on the right device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.geometry.plan import grid
from foveal.methods.base import AdaptiveSegmenter, WrappingMethod, check_shape
from foveal.methods.prediction import Prediction
from foveal.tiles import TileTensor

if TYPE_CHECKING:
    from foveal.geometry.plan import Plan
    from foveal.tiles.memory import Memory

Pad = Callable[[Tensor, int], Tensor]
"""Pads images [N, C, H, W] at the right and lower edge to multiples of a side [px]."""


class PaddedNetwork(nn.Module):
    """Pads whole images to sides that a network takes, and crops its logits; tiles go through as they are.

    Args:
        prepared: Module from images [N, C, H, W] to logits, with `in_channels`, `classes`, `stride` and
            `coarsest_stride`; or the same with its layers joined.
        multiple: Sides of images must be multiples of it [px].
        pad: How images are padded.

    Attributes:
        dense_modules: Names of the submodules that must see the whole map.
    """

    def __init__(self, prepared: Any, multiple: int, pad: Pad) -> None:
        super().__init__()
        self.prepared, self.multiple, self.pad = prepared, multiple, pad
        self.in_channels, self.classes = prepared.in_channels, prepared.classes
        self.stride, self.coarsest_stride = prepared.stride, prepared.coarsest_stride
        self.dense_modules = tuple(f"prepared.{name}" for name in getattr(prepared, "dense_modules", ()))

    def around(self, inner: nn.Module) -> PaddedNetwork:
        """Put another form of the same network in the place of this one."""
        made = PaddedNetwork(self.prepared, self.multiple, self.pad)
        made.prepared = inner
        names: Any = getattr(inner, "dense_modules", ())
        made.dense_modules = tuple(f"prepared.{name}" for name in names)
        return made.train(self.training)

    def forward(self, image: Any) -> Any:
        """Map images [N, C, H, W] in 0..1 to logits [N, K, H / stride, W / stride], sides rounded up."""
        if isinstance(image, TileTensor):
            return self.prepared(image)
        height, width = (-(-side // self.stride) for side in image.shape[2:])
        return self.prepared(self.pad(image, self.multiple))[:, :, :height, :width]


class PaddedMethod(WrappingMethod):
    """Brings images to the device and the sides that a method's network takes, and the answer back.

    Args:
        method: The method.
        network: The network that says how images are padded.
        multiple: Sides of images become multiples of it [px].
        tile: Side of the cells of its masks [px].
    """

    def __init__(self, method: AdaptiveSegmenter, network: nn.Module, multiple: int, tile: int) -> None:
        super().__init__()
        self.method: AdaptiveSegmenter = method
        self.network, self.multiple, self.tile = method.network, multiple, tile
        self.device = device_of(network)
        self._around = network.around if isinstance(network, PaddedNetwork) else None
        self._pad = network.pad if isinstance(network, PaddedNetwork) else None

    def forward(self, image: Tensor, memory: Memory | None = None) -> Prediction:
        """Segment images [N, C, H, W] in 0..1 of any size, given what the last call left in `memory`."""
        check_shape(image, self.network)
        return self._returned(self.method(self.sent(image), memory), image)

    def masked(self, image: Tensor, wanted: Tensor) -> Prediction:
        """Segment where cells [N, Gh, Gw] of the images are wanted."""
        check_shape(image, self.network)
        sent = self.sent(image)
        rows, columns = grid((sent.shape[2], sent.shape[3]), self.tile)
        room = (0, columns - wanted.shape[2], 0, rows - wanted.shape[1])
        return self._returned(self.method.masked(sent, F.pad(wanted, room)), image)

    def labels(self, image: Tensor) -> Tensor:
        """Return the class per pixel [N, H, W], uint8."""
        height, width = check_shape(image, self.network)
        return self.method.labels(self.sent(image))[:, :height, :width].to(image.device)

    def decide(self, image: Tensor) -> Plan | None:
        """Return the plan of the method, for the padded images."""
        return self.method.decide(self.sent(image))

    def dense(self) -> nn.Module:
        """Return the network that the method equals when it spends everything, for images of any size."""
        inner = self.method.dense()
        return self._around(inner) if self._around and not isinstance(inner, PaddedNetwork) else inner

    def least_work(self, size: tuple[int, int]) -> float:
        """Return the least share of the dense work, for the padded image."""
        height, width = (side - side % -self.multiple for side in size)
        return self.method.least_work((height, width))

    def remaining_gain(self, image: Tensor, prediction: Prediction) -> Tensor:
        """Return the gain per pixel that was left unspent [N]."""
        return self.method.remaining_gain(image.to(self.device), prediction)

    def sent(self, image: Tensor) -> Tensor:
        """Return images as the network takes them."""
        moved = image.to(self.device)
        if self._pad is None:
            return moved
        return self._pad(moved, self.multiple).contiguous(memory_format=torch.channels_last)

    def _returned(self, found: Prediction, image: Tensor) -> Prediction:
        """Crop an answer to the images, and bring its labels back to their device."""
        size = height, width = (image.shape[2], image.shape[3])
        labels = found.labels[:, :height, :width].to(image.device)
        if size == found.size:
            return Prediction(found.logits, size, found.trace, found.memory, labels)
        stride = -(-found.size[0] // found.logits.shape[2])
        logits = found.logits[:, :, : -(-height // stride), : -(-width // stride)]
        return Prediction(logits, size, replace(found.trace, scale=1.0), found.memory, labels)


def unpadded(method: AdaptiveSegmenter) -> AdaptiveSegmenter:
    """Return the method that gets the images in the end."""
    return method.method if isinstance(method, PaddedMethod) else method


def device_of(network: nn.Module) -> torch.device:
    """Return where a network is; the CPU for one without numbers."""
    first = next(iter(network.parameters()), None)
    return torch.device("cpu") if first is None else first.device
