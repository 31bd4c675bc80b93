"""What a network gives for an image: found by running it on small ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from foveal.compatibility.logits import Path, follow, path_of
from foveal.storage.channels import channels_of
from foveal.storage.schema import MOST_CHANNELS, MOST_CLASSES, Stride

SIDES = 128, 256
"""Sides of the images whose maps are compared [px]: a map whose side grows alike has a stride."""
RAGGED = 101, 75
"""An image whose sides are no multiple of anything [px]."""


@dataclass(frozen=True)
class NetworkShape:
    """What goes into a network, and what comes out.

    Attributes:
        in_channels: Channels of its images.
        outputs: Classes of its logits; 1 means the probability of one class, by a sigmoid.
        path: Where the logits are in what it returns.
        stride: Image pixels per sample of the logits; 1 if they have the image's size.
        coarsest_stride: Largest number of image pixels per sample of any map.
        multiple: Sides of images must be multiples of it [px]; 1 if they may have any size.
        align_corners: Whether it enlarges maps with the corners aligned.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    in_channels: Annotated[int, Field(ge=1, le=MOST_CHANNELS)]
    outputs: Annotated[int, Field(ge=1, le=MOST_CLASSES)]
    path: Path
    stride: Stride
    coarsest_stride: Stride
    multiple: Stride = 1
    align_corners: bool = False

    @property
    def classes(self) -> int:
        """Number of classes that are labelled."""
        return max(2, self.outputs)


@torch.no_grad()
def find_shape(
    network: nn.Module, in_channels: int | None = None, multiple: int | None = None
) -> NetworkShape:
    """Run a network on random images, and note what comes out.

    Args:
        network: Module in evaluation mode.
        in_channels: Channels of its images; found by its first convolution if None.
        multiple: What the sides of images must be multiples of [px]; found by trying if None.

    Raises:
        ValueError: It fails on a plain image, or gives no logits that fit the image.
    """
    channels = in_channels or channels_of(network)
    runs = []
    for side in SIDES:
        with _Watch() as watch:
            answer = _run(network, channels, (side, side))
        runs.append(watch)
    path = path_of(answer)
    logits = follow(answer, path)
    stride = _stride(logits, SIDES[-1])
    strides = [stride, *_strides(*(watch.maps for watch in runs))]
    coarsest = max(strides)
    found = multiple or (1 if _takes_any_size(network, channels, path, stride) else coarsest)
    aligned = any(watch.align_corners for watch in runs)
    return NetworkShape(channels, logits.shape[1], path, stride, coarsest, found, aligned)


def _run(network: nn.Module, channels: int, size: tuple[int, int]) -> Any:
    """Run a network on a random image.

    Raises:
        ValueError: It fails.
    """
    like = next(iter(network.parameters()), torch.empty(0))
    image = torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(0)).to(like)
    try:
        return network(image)
    except Exception as error:  # whatever a network does when an image does not suit it
        raise ValueError(
            f"the network fails on an image [1, {channels}, {size[0]}, {size[1]}]: "
            f"{' '.join(str(error).split())[:300]}; give in_channels if its images have others, and a "
            "network that takes sides of any size or any multiple of one"
        ) from None


def _takes_any_size(network: nn.Module, channels: int, path: Path, stride: int) -> bool:
    """Whether the logits of an image of odd sides have the sides of the image, by the stride, rounded up."""
    try:
        logits = follow(_run(network, channels, RAGGED), path)
    except ValueError:
        return False
    return tuple(logits.shape[2:]) == tuple(-(-side // stride) for side in RAGGED)


def _stride(logits: Tensor, side: int) -> int:
    """Return the image pixels per sample of logits.

    Raises:
        ValueError: They are no whole power of two, or differ between the sides.
    """
    height, width = logits.shape[2:]
    stride = side // max(1, height)
    if height != width or stride * height != side or stride & (stride - 1):
        raise ValueError(
            f"the network gives logits of {height}x{width} for an image of {side}x{side}; give one whose "
            "logits have the image's size, or that divided by a power of two"
        )
    return stride


def _strides(small: Sequence[torch.Size], large: Sequence[torch.Size]) -> list[int]:
    """List the strides of the maps that grow with the image; a pooled grid does not."""
    found = set()
    for a, b in zip(small, large, strict=False):
        strides = {side / count for side, shape in zip(SIDES, (a, b), strict=True) for count in shape}
        if len(strides) == 1 and (only := strides.pop()) >= 1 and only.is_integer():
            found.add(int(only))
    return [stride for stride in found if stride & (stride - 1) == 0]


class _Watch(TorchFunctionMode):
    """Notes the sides of every map that a network computes, and how it enlarges."""

    def __init__(self) -> None:
        super().__init__()
        self.maps: list[torch.Size] = []
        self.align_corners = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.ndim == 4 and min(out.shape) > 0:
            self.maps.append(out.shape[2:])
        if func is F.interpolate and (kwargs or {}).get("align_corners"):
            self.align_corners = True
        return out
