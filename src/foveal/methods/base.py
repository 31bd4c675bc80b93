"""What every adaptive method is: a module from images to predictions, with its dense baseline."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from foveal.geometry.plan import overlay
from foveal.ops import classify, upsample

if TYPE_CHECKING:
    from foveal.geometry.plan import Plan
    from foveal.policies.learned import PolicyNet
    from foveal.tiles.memory import Memory


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

    @property
    def levels(self) -> Tensor | None:
        """Level that the answer comes from, per cell [N, Gh, Gw]; None if whole images ran."""
        plans = [step.plan for step in self.steps if step.plan is not None]
        return overlay(plans) if plans else None


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
        return classify(self.logits, self.size)

    @property
    def full_logits(self) -> Tensor:
        """Logits at the size of the images [N, K, H, W]."""
        return upsample(self.logits, self.size)


@dataclass(frozen=True)
class Request:
    """What a user asks a method for; every method takes from it what it has.

    Attributes:
        budget: Share of the dense work, above 0 and at most 1.
        policy: Name in `foveal.policies.POLICIES`.
        tile: Side of a tile [px].
        coarsest: Coarsest level that may occur.
        look: Level of a first look, for policies that need one.
        net: Policy network, for the policy "learned".
        threshold: Gain per tile from which a tile is refined, for methods that have one.
        worth: What a step to level 0, 1, ... gains, as a share of the score, where that was measured.
    """

    budget: float = 0.4
    policy: str = "entropy"
    tile: int = 32
    coarsest: int = 2
    look: int = 2
    net: PolicyNet | None = None
    threshold: float | None = None
    worth: tuple[float, ...] = ()


class Segmenter(nn.Module, ABC):
    """Turns images into predictions, and spends as much as the images need.

    A final class per method; no method is overridden once written.

    Attributes:
        network: The ordinary network that the method runs.
        default_policy: Policy of requests that name none.
    """

    network: nn.Module
    default_policy: ClassVar[str] = "entropy"

    @classmethod
    @abstractmethod
    def on_request(cls, network: nn.Module, request: Request) -> Segmenter:
        """Make the method for a network, as a user asks for it."""

    @abstractmethod
    def forward(self, image: Tensor, memory: Memory | None = None) -> Prediction:
        """Segment images [N, 3, H, W] in 0..1, given what the last call left in `memory`."""

    @abstractmethod
    def dense(self) -> nn.Module:
        """Return the network that the method equals when it spends everything."""

    def dense_labels(self, image: Tensor) -> Tensor:
        """Return what the dense network says, class per pixel [N, H, W], uint8."""
        size = check_image(image)
        return Prediction(self.dense()(image), size, Trace()).labels

    @abstractmethod
    def least_work(self, size: tuple[int, int]) -> float:
        """Return the least share of the dense work that the method can spend on an image of `size` [px]."""

    @abstractmethod
    def loss(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the terms to minimise for images [N, 3, H, W] and labels [N, H, W]."""


def check_tile(network: nn.Module, tile: int) -> int:
    """Return the side of a tile, if tiles stay whole at every stride of the network.

    Raises:
        ValueError: They do not. A network that does not say its coarsest stride is not checked here.
    """
    stride = int(getattr(network, "coarsest_stride", 1))
    if tile < 1 or tile % stride:
        nearest = max(1, round(tile / stride)) * stride
        raise ValueError(
            f"tile is {tile} px and the network has stride {stride}; give a multiple of {stride}, "
            f"such as {nearest}"
        )
    return tile


def check_image(image: Tensor) -> tuple[int, int]:
    """Return height and width of a batch of images [N, 3, H, W].

    Raises:
        ValueError: It has another shape or precision, is empty, or holds NaN or infinity.
    """
    shape = list(image.shape)
    if image.ndim != 4 or image.shape[1] != 3 or image.numel() == 0:
        raise ValueError(f"images are {shape}; give [N, 3, H, W], RGB in 0..1, nothing empty")
    if not image.is_floating_point():
        raise ValueError(
            f"images are {image.dtype}; give floating point numbers in 0..1 (divide bytes by 255)"
        )
    if not bool(image.sum(dtype=torch.promote_types(image.dtype, torch.float32)).isfinite()):
        raise ValueError("images hold NaN or infinity; give finite numbers in 0..1")
    return image.shape[2], image.shape[3]
