"""What every adaptive method is: a module from images to predictions, with its dense baseline."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from foveal.tiles.memory import Memory
    from foveal.tiles.plan import Plan


@dataclass(frozen=True)
class Step:
    """One decision, and what was computed after it.

    Attributes:
        name: What ran, "look" or "network" for instance.
        work: Share of the dense network's work per image [N].
        plan: Which tiles ran; None if the whole images did.
    """

    name: str
    work: Tensor
    plan: Plan | None = None


@dataclass(frozen=True)
class Trace:
    """Every decision about a batch of images, in order."""

    steps: tuple[Step, ...] = ()

    @property
    def work(self) -> Tensor:
        """Share of the dense network's work per image [N], all passes together."""
        return torch.stack([step.work for step in self.steps]).sum(0)

    @property
    def plan(self) -> Plan | None:
        """The last plan, the one that the prediction comes from; None if whole images ran."""
        return self.steps[-1].plan


@dataclass(frozen=True)
class Prediction:
    """What a method says about a batch of images.

    Attributes:
        logits: [N, K, h, w] at the network's own stride.
        size: Height and width of the images [px].
        trace: The decisions, in order.
        memory: What the next frame or pass may keep, if the method remembers.
    """

    logits: Tensor
    size: tuple[int, int]
    trace: Trace
    memory: Memory | None = field(default=None, repr=False)

    @cached_property
    def labels(self) -> Tensor:
        """Class per pixel [N, H, W], uint8."""
        return torch.cat([upsample(row[None], self.size).argmax(1) for row in self.logits]).to(torch.uint8)

    @property
    def full_logits(self) -> Tensor:
        """Logits at the size of the images [N, K, H, W]."""
        return upsample(self.logits, self.size)


class Segmenter(nn.Module, ABC):
    """Turns images into predictions, and spends as much as the images need.

    A final class per method; no method is overridden once written.

    Attributes:
        network: The ordinary network that the method runs.
    """

    network: nn.Module

    @abstractmethod
    def forward(self, image: Tensor, memory: Memory | None = None) -> Prediction:
        """Segment images [N, 3, H, W] in 0..1, given what the last call left in `memory`."""

    @abstractmethod
    def dense(self) -> nn.Module:
        """Return the network that the method equals when it spends everything."""

    @abstractmethod
    def loss(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the terms to minimise for images [N, 3, H, W] and labels [N, H, W]."""


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring logits [N, K, h, w] to the size of the image, bilinearly by a whole factor, then crop."""
    factor = max(-(-size[0] // logits.shape[2]), -(-size[1] // logits.shape[3]))
    factor = 1 << max(0, factor - 1).bit_length()
    if factor > 1:
        logits = F.interpolate(logits, scale_factor=factor, mode="bilinear", align_corners=False)
    return logits[:, :, : size[0], : size[1]]
