"""Prediction of a method, and every decision that led to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foveal.geometry.plan import overlay
from foveal.ops import classify, upsample

if TYPE_CHECKING:
    from foveal.geometry.plan import Plan
    from foveal.tiles.memory import Memory


@dataclass(frozen=True)
class Step:
    """One decision, and what was computed after it.

    Attributes:
        name: What ran, "coarse" or "network" for instance.
        work: Share of the dense network's work per image [N].
        plan: Which tiles ran; None if the whole images did.
    """

    name: str
    work: Tensor
    plan: Plan | None = None


@dataclass(frozen=True)
class Trace:
    """Every decision about a batch of images, in order.

    Attributes:
        steps: The decisions.
        known_levels: Levels of the answer [N, Gh, Gw] where they do not follow from the steps.
    """

    steps: tuple[Step, ...] = ()
    known_levels: Tensor | None = None

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
        if self.known_levels is not None:
            return self.known_levels
        plans = [step.plan for step in self.steps if step.plan is not None]
        return overlay(plans) if plans else None


@dataclass(frozen=True)
class Prediction:
    """Prediction of a method for a batch of images.

    Attributes:
        logits: [N, K, h, w] at the network's own stride.
        size: Height and width of the images [px].
        trace: The decisions, in order.
        memory: What the next frame or pass may keep, if the method remembers.
        computed_labels: Class per pixel [N, H, W], uint8, where they were computed together with the logits.
    """

    logits: Tensor
    size: tuple[int, int]
    trace: Trace
    memory: Memory | None = field(default=None, repr=False)
    computed_labels: Tensor | None = field(default=None, repr=False)

    @cached_property
    def labels(self) -> Tensor:
        """Class per pixel [N, H, W], uint8."""
        return classify(self.logits, self.size) if self.computed_labels is None else self.computed_labels

    @property
    def full_logits(self) -> Tensor:
        """Logits at the size of the images [N, K, H, W]."""
        return upsample(self.logits, self.size)
