"""Ordinary networks: none of them knows that it will be adapted.

`MODELS` maps a name to a builder of plain arguments; `create_model` looks it up.
"""

from __future__ import annotations

from collections.abc import Callable

from foveal.models.efficientnet import EfficientNetLiteEncoder
from foveal.models.lattice import LatticeNetwork
from foveal.models.mobilenet import MobileNetV2Encoder
from foveal.models.nano import NanoEncoder
from foveal.models.network import SegmentationNetwork, with_channels
from foveal.models.resnet import ResNetEncoder
from foveal.models.swiftnet import SwiftNetHead
from foveal.storage.names import find

HALVES = ((0.5,) * 3, (0.5,) * 3)
"""Mean and deviation of networks trained on x / 127.5 - 1."""


def swiftnet_rn18(classes: int = 19) -> SegmentationNetwork:
    """SwiftNet with ResNet-18: 103.6 GMAC at 1024x2048."""
    encoder = ResNetEncoder(18)
    return SegmentationNetwork(encoder, SwiftNetHead(encoder.channels, classes), classes)


def swiftnet_rn18_s16(classes: int = 19) -> SegmentationNetwork:
    """SwiftNet with a ResNet-18 that ends at stride 16: 2.8 M encoder parameters."""
    encoder = ResNetEncoder(18, stages=3)
    return SegmentationNetwork(encoder, SwiftNetHead(encoder.channels, classes), classes)


def swiftnet_rn50(classes: int = 19) -> SegmentationNetwork:
    """SwiftNet with ResNet-50: 205 GMAC at 1024x2048."""
    encoder = ResNetEncoder(50)
    return SegmentationNetwork(encoder, SwiftNetHead(encoder.channels, classes), classes)


def swiftnet_efflite1(classes: int = 19) -> SegmentationNetwork:
    """SwiftNet with EfficientNet-Lite1 and 48 decoder channels: 24.5 GMAC at 1024x2048."""
    encoder = EfficientNetLiteEncoder("lite1")
    head = SwiftNetHead(encoder.channels, classes, width=48, context_width=128)
    return SegmentationNetwork(encoder, head, classes)


def swiftnet_mobilenetv2(classes: int = 19) -> SegmentationNetwork:
    """SwiftNet with MobileNetV2 (TensorFlow padding) and 64 decoder channels."""
    encoder = MobileNetV2Encoder(same_padding=True)
    head = SwiftNetHead(encoder.channels, classes, width=64, context_width=128)
    return SegmentationNetwork(encoder, head, classes, *HALVES)


def swiftnet_nano(classes: int = 19) -> SegmentationNetwork:
    """A small SwiftNet for CPU-scale studies and edge devices: 6 % of the MACs of `swiftnet_rn18`."""
    encoder = NanoEncoder()
    return SegmentationNetwork(encoder, SwiftNetHead(encoder.channels, classes, width=48), classes)


def lattice8(classes: int = 19) -> SegmentationNetwork:
    """A lattice of 8 layers and 4 scales, 16 to 128 channels, for CPU-scale studies of routing."""
    return LatticeNetwork(8, 16, classes)


def lattice16(classes: int = 19) -> SegmentationNetwork:
    """The lattice of Dynamic Routing with 16 layers and 4 scales, 64 to 512 channels, all paths open."""
    return LatticeNetwork(16, 64, classes)


def lattice33(classes: int = 19) -> SegmentationNetwork:
    """The lattice of Dynamic Routing with 33 layers."""
    return LatticeNetwork(33, 64, classes)


MODELS: dict[str, Callable[[int], SegmentationNetwork]] = {
    builder.__name__: builder
    for builder in (
        swiftnet_rn18,
        swiftnet_rn18_s16,
        swiftnet_rn50,
        swiftnet_efflite1,
        swiftnet_mobilenetv2,
        swiftnet_nano,
        lattice8,
        lattice16,
        lattice33,
    )
}


def create_model(name: str, classes: int = 19, channels: int = 3) -> SegmentationNetwork:
    """Build a network with fresh weights.

    Args:
        name: In `MODELS`.
        classes: Logits K; 1 is for a sigmoid.
        channels: Channels C of its images; for others than 3 all are normalised alike.

    Raises:
        ValueError: No network of that name, or less than one class or channel.
    """
    network = find(name, MODELS, "network")
    if classes < 1:
        raise ValueError(f"a network needs at least 1 class, given {classes}")
    if channels < 1:
        raise ValueError(f"a network needs images of at least 1 channel, given {channels}")
    made = network(classes)
    return made if channels == made.in_channels else with_channels(made, channels)
