"""A network with its preprocessing, from images in 0..1 to logits: an ordinary module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from foveal.adaptive.preprocess import Preprocess
from foveal.adaptive.probe import NetworkShape
from foveal.compatibility.logits import follow
from foveal.models.adapters import settle


class PreparedNetwork(nn.Module):
    """Orders channels and normalises images as a network has them, runs it, and picks its logits.

    It can be traced, joined, compiled and run on tiles as far as the network can. One logit x becomes the
    pair [0, x], whose softmax is the sigmoid of x: class 1 where that is above 0.5.

    Args:
        network: Module from images [N, C, H, W] to logits, or to something that holds them.
        shape: What goes in and comes out.
        preprocess: What images in 0..1 need.
        dense_modules: Names of the network's submodules that must see the whole map.

    Attributes:
        title: Class of the network, for messages.
        mixing: Names of the submodules that must see the whole map, as the network has them.
        in_channels: Channels C of the images.
        classes: Number of classes K.
        stride: Image pixels per logit sample.
        coarsest_stride: Image pixels per sample of the coarsest map.
        dense_modules: The same names, as seen from here.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        shape: NetworkShape,
        preprocess: Preprocess,
        dense_modules: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.network = network
        self.shape, self.preprocess, self.mixing = shape, preprocess, dense_modules
        settle(network)
        self._path, self.title = shape.path, type(network).__name__
        self.in_channels, self.classes = shape.in_channels, shape.classes
        self.stride, self.coarsest_stride = shape.stride, shape.coarsest_stride
        self.dense_modules = tuple(f"network.{name}" if name else "network" for name in dense_modules)
        parts: list[Tensor | None] = [None, None]
        pairs = preprocess.per_channel(shape.in_channels)
        if not preprocess.is_identity:
            parts = [torch.tensor(values).view(1, -1, 1, 1) for values in pairs]
        for name, value in zip(("mean", "std"), parts, strict=True):
            self.register_buffer(name, value, persistent=False)
        like = next(iter(network.parameters()), torch.empty(0))
        self.swap = _swap().to(like) if preprocess.channel_order == "bgr" else None
        self.pair = _pair() if shape.outputs == 1 else None

    def forward(self, image: Any) -> Any:
        """Map images [N, C, H, W] in 0..1, colours as RGB, to logits [N, K, H / stride, W / stride]."""
        if self.swap is not None:
            image = self.swap(image)
        if self.mean is not None:
            image = (image - self.mean) / self.std
        logits = follow(self.network(image), self._path)
        return logits if self.pair is None else self.pair(logits)


def _swap() -> nn.Conv2d:
    """Make the layer that turns red, green, blue into blue, green, red; a tile and a program have it too."""
    layer = nn.Conv2d(3, 3, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(3).flip(0).view(3, 3, 1, 1))
    return layer.requires_grad_(False)


def _pair() -> nn.Conv2d:
    """Make the layer that turns one logit x into [0, x]."""
    layer = nn.Conv2d(1, 2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1))
    return layer.requires_grad_(False)
