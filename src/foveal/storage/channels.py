"""How many channels the images of a network have."""

from __future__ import annotations

from torch import nn


def channels_of(network: nn.Module) -> int:
    """Return the channels of images: a network's `in_channels`, or 3 if a convolution takes so many.

    Else those of its first convolution: layers need not run in the order in which they were made.
    """
    said = getattr(network, "in_channels", None)
    if type(said) is int and said > 0:
        return said
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    taken = [module.in_channels for module in network.modules() if isinstance(module, kinds)]
    return 3 if 3 in taken or not taken else taken[0]
