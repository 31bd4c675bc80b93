"""timm: its encoders carry a card of their images; a head of ours makes segmenters of them."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from functools import partial
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from foveal.models.adapters.base import Adapter, Images, Maker, Pretrained, Recognised, is_network, is_of
from foveal.models.network import IMAGENET_MEAN, IMAGENET_STD, SegmentationNetwork
from foveal.models.swiftnet import SwiftNetHead

SEGMENTER = "foveal.models.adapters:timm_segmenter"
CARDS = "pretrained_cfg", "default_cfg"
FINEST = 4
"""Stride of the finest map that the decoder takes [px]."""


class TimmAdapter(Adapter):
    """Networks of timm, and networks with an encoder of it."""

    library = "timm"
    prefix = "timm:"

    def recognise(self, network: nn.Module) -> Recognised | None:
        """Read the card of the network or of one of its parts."""
        encoder = getattr(network, "encoder", None)
        if isinstance(network, SegmentationNetwork) and isinstance(encoder, TimmEncoder):
            arguments = {"name": encoder.name, "classes": network.classes, "channels": network.in_channels}
            return Recognised(maker=Maker(SEGMENTER, {**arguments, "width": encoder.width}))
        for module in (network, *network.children()):
            for card in (getattr(module, name, None) for name in CARDS):
                if isinstance(card, Mapping) and card.get("mean") and card.get("std"):
                    images = Images(tuple(card["mean"]), tuple(card["std"]))
                    return Recognised(partial(copy, images), self._maker(network))
        return None

    def may_call(self, function: str, maker: Any) -> bool:
        """Whether it is the library's own function, or ours for its encoders."""
        if function in (f"{self.library}:create_model", SEGMENTER):
            return True
        return function.split(".")[0].split(":")[0] == self.library and is_network(maker)

    def pretrained(self, name: str) -> Pretrained:
        """Make a pretrained model, which is downloaded if it is not there.

        Raises:
            ValueError: timm cannot be imported, or has no such weights.
        """
        library = _imported(f"{self.prefix}{name}")
        try:
            model: Any = library.create_model(name, pretrained=True)
        except (RuntimeError, OSError, ValueError) as error:
            raise ValueError(
                f"{self.prefix}{name}: timm has no such pretrained weights, or cannot download them "
                f"({_first_line(error)}); give a name of timm.list_pretrained(), or download the weights "
                "elsewhere and give the file"
            ) from None
        card, same = model.pretrained_cfg, any(type(m).__name__ == "Conv2dSame" for m in model.modules())
        return Pretrained(model.state_dict(), Images(tuple(card["mean"]), tuple(card["std"])), same)

    def _maker(self, network: nn.Module) -> Maker | None:
        card: Any = getattr(network, CARDS[0], None)
        if not is_of(network, self.library) or not isinstance(card, Mapping):
            return None
        return Maker(f"{self.library}:create_model", {"model_name": card["architecture"]})


class TimmEncoder(nn.Module):
    """An encoder of timm that gives its maps, from the one at stride 4 on.

    Args:
        name: As of `timm.create_model`.
        channels: Channels of its images.
        pretrained: Whether its trained weights are downloaded.
        width: Channels of the decoder, kept so that the network can be made again.

    Attributes:
        channels: Channels of every returned map, finest first.
        strides: Input pixels per sample of every returned map, finest first.
    """

    def __init__(self, name: str, channels: int, pretrained: bool, width: int) -> None:
        super().__init__()
        library = _imported(name)
        try:
            self.body = library.create_model(
                name, features_only=True, pretrained=pretrained, in_chans=channels
            )
        except (RuntimeError, AttributeError, AssertionError) as error:
            raise ValueError(
                f"{name}: timm makes no encoder of it that returns maps ({_first_line(error)}); give a "
                "name of timm.list_models() that takes features_only=True"
            ) from None
        info: Any = self.body.feature_info
        reductions: list[int] = list(info.reduction())
        self.first = next((k for k, stride in enumerate(reductions) if stride >= FINEST), len(reductions))
        self.name, self.width = name, width
        self.channels, self.strides = (tuple(v[self.first :]) for v in (info.channels(), reductions))
        steps = zip(self.strides, self.strides[1:], strict=False)
        if not self.strides or any(b != 2 * a for a, b in steps):
            raise ValueError(
                f"{name} has maps of strides {', '.join(map(str, reductions))}; give an encoder whose "
                f"strides double from {FINEST} px on"
            )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return one map a stage [N, C, H / stride, W / stride]."""
        return list(self.body(image)[self.first :])


def timm_segmenter(
    name: str, classes: int, channels: int = 3, width: int = 128, pretrained: bool = False
) -> SegmentationNetwork:
    """Make a segmenter of any encoder of timm that returns maps, and the decoder of SwiftNet.

    Args:
        name: As of `timm.create_model`, such as "resnet18" or "convnext_tiny.fb_in1k".
        classes: Logits K.
        channels: Channels of its images; others than 3 are normalised alike.
        width: Channels of the decoder.
        pretrained: Whether the encoder's trained weights are downloaded.

    Returns:
        A network from images [N, C, H, W] in 0..1 to logits at the stride of the encoder's finest map that is
        at least 4 px.

    Raises:
        ValueError: timm is not there, or has no such encoder, or its strides do not double.
    """
    encoder = TimmEncoder(name, channels, pretrained, width)
    card: Any = getattr(encoder.body, CARDS[0], None) or {}
    mean, std = (
        tuple(card.get(key) or usual) for key, usual in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD))
    )
    if channels != len(mean):
        mean, std = ((sum(values) / len(values),) * channels for values in (mean, std))
    return SegmentationNetwork(encoder, SwiftNetHead(encoder.channels, classes, width), classes, mean, std)


def _imported(what: str) -> Any:
    try:
        return import_module("timm")
    except (ImportError, RuntimeError) as error:  # torchvision beside another build of torch
        raise ValueError(
            f"{what}: timm cannot be imported ({_first_line(error)}); pip install 'foveal[timm]'"
        ) from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
