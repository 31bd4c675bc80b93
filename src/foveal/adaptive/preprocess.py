"""What happens to an image before it reaches a network; part of an adaptive model and of its file."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

import torch
from pydantic import ConfigDict
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.methods.base import value_range
from foveal.models.adapters import ADAPTERS, Images, read_images, recognise
from foveal.storage.given import WrongType
from foveal.storage.schema import Stride

Order = Literal["rgb", "bgr"]
Pad = Literal["edge", "zero"]
BYTE = 255.0
BRIGHTEST = 2.0
"""Values above it are none of an image in 0..1."""


@dataclass(frozen=True)
class Preprocess:
    """What turns an image in 0..1 into the input of a network: (image * scale - mean) / std.

    Attributes:
        mean: Mean per channel after scaling; one number for all channels.
        std: Deviation per channel after scaling; one number for all channels.
        scale: 1 for a network that takes 0..1, 255 for one that takes 0..255.
        channel_order: "bgr" for a network that takes blue first; images that are given are RGB.
        multiple: Sides are padded to a multiple of it [px], the answer is cropped; found if None.
        pad: What is put there: "edge" repeats the image's edge, "zero" is zero after normalisation.

    Raises:
        ValueError: A value is not allowed.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 1.0
    channel_order: Order = "rgb"
    multiple: Stride | None = None
    pad: Pad = "zero"

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            given = getattr(self, name)
            numbers = _numbers(name, given)
            object.__setattr__(self, name, numbers)
            if not numbers or not all(map(math.isfinite, numbers)):
                raise ValueError(f"{name} is {given}; give one finite number per channel, or one for all")
        if min(self.std) <= 0:
            raise ValueError(f"std is {self.std}; give numbers above 0")
        if self.scale not in (1.0, BYTE):
            raise ValueError(
                f"scale is {self.scale:g}; give 1.0 for a network that takes 0..1, or 255.0 for 0..255"
            )
        for name, kind in (("channel_order", Order), ("pad", Pad)):
            if getattr(self, name) not in get_args(kind):
                allowed = " or ".join(f'"{value}"' for value in get_args(kind))
                raise ValueError(f'{name} is "{getattr(self, name)}"; give {allowed}')
        if self.multiple is not None and self.multiple < 1:
            raise ValueError(f"multiple is {self.multiple}; give 1 px or more, or None to find it")

    @property
    def is_identity(self) -> bool:
        """Whether values reach the network as they are."""
        return not any(self.mean) and set(self.std) == {1.0} and self.scale == 1

    def per_channel(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return offset and divisor of every channel of the network: (image - offset) / divisor.

        Raises:
            ValueError: The numbers are for another count of channels.
        """
        for name in ("mean", "std"):
            count = len(getattr(self, name))
            if count not in (1, channels):
                raise ValueError(
                    f"{name} has {count} numbers and the network takes {channels} channels; give {channels}, "
                    "or one for all"
                )
        if self.channel_order == "bgr" and channels != 3:
            raise ValueError(
                f'channel_order is "bgr" and the network takes {channels} channels; give "rgb", which leaves '
                "channels as they are"
            )
        mean, std = (values * (channels // len(values)) for values in (self.mean, self.std))
        return tuple(m / self.scale for m in mean), tuple(s / self.scale for s in std)

    def arrange(self, image: Tensor, dtype: torch.dtype) -> Tensor:
        """Bring images [N, C, H, W], bytes or floats in 0..1, to the network's precision.

        Raises:
            ValueError: The values are other integers, or floats in 0..255.
        """
        if image.dtype == torch.uint8:
            image = image.to(dtype) / BYTE
        elif not image.is_floating_point() or image.element_size() < 2:
            raise ValueError(f"images are {image.dtype}; give bytes (uint8), or floats in 0..1")
        elif not self.is_identity and (most := value_range(image)[1]) > BRIGHTEST:
            raise ValueError(
                f"images reach {most:g}; give floats in 0..1, or bytes (uint8): the model "
                "normalises by itself"
            )
        return image.to(dtype)

    def padded(self, image: Tensor, multiple: int) -> Tensor:
        """Pad images [N, C, H, W] in 0..1 at the right and lower edge to multiples of a side [px]."""
        down, across = (-side % multiple for side in image.shape[2:])
        if not down and not across:
            return image
        if self.pad == "edge":
            return F.pad(image, (0, across, 0, down), mode="replicate")
        offset, _ = self.per_channel(image.shape[1])
        offset = offset[::-1] if self.channel_order == "bgr" else offset  # images are RGB until the network
        out = image.new_tensor(offset).view(1, -1, 1, 1)
        out = out.repeat(len(image), 1, image.shape[2] + down, image.shape[3] + across)
        out[:, :, : image.shape[2], : image.shape[3]] = image
        return out


def _numbers(name: str, given: Any) -> tuple[float, ...]:
    """Return a number, or the numbers of a list, array or tensor, as a tuple."""
    try:
        return (given,) if isinstance(given, int | float) else tuple(map(float, given))
    except (TypeError, ValueError, RuntimeError):  # whatever a tensor without numbers makes of it
        raise WrongType(
            f"{name} is a {type(given).__name__}; give one finite number per channel, or one for all"
        ) from None


def as_preprocess(given: Any) -> Preprocess:
    """Read preprocessing from what says it: a `Preprocess`, torchvision weights, or an image processor.

    Raises:
        TypeError: It is none of these.
    """
    if isinstance(given, Preprocess):
        return given
    images = read_images(given)
    if images is None:
        others = ", or ".join(adapter.preprocessing for adapter in ADAPTERS if adapter.preprocessing)
        raise TypeError(
            f"preprocess is a {type(given).__name__}; give foveal.Preprocess(mean, std), {others}"
        )
    return _of(images)


def find_preprocess(network: nn.Module) -> Preprocess:
    """Find what a network says about its input, by the library that it is of; else nothing.

    Raises:
        ValueError: The library cannot tell.
    """
    known = recognise(network)
    found = Preprocess() if known.find_images is None else _of(known.find_images())
    return replace(found, multiple=known.multiple)


def _of(images: Images) -> Preprocess:
    return Preprocess(images.mean, images.std, images.scale, images.channel_order)
