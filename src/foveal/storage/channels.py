"""How many channels the images of a network have."""

from __future__ import annotations

from torch import nn


def channels_of(network: nn.Module) -> int:
    """Return the channels of images: a network's `in_channels`, those of its first convolution, or 3."""
    said = getattr(network, "in_channels", None)
    if type(said) is int and said > 0:
        return said
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    return next((m.in_channels for m in network.modules() if isinstance(m, kinds)), 3)
