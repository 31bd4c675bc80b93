"""Prediction of a method, and every decision that led to it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foveal.geometry.plan import overlay
from foveal.ops import classify, upsample
from foveal.storage.pictures import Colour, default_palette, figure, label_picture, lay_over

if TYPE_CHECKING:
    from PIL import Image

    from foveal.geometry.plan import Plan
    from foveal.routes import Route
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
        steps: The decisions; their work is a share of the dense network's on the whole image.
        known_levels: Levels of the answer [N, Gh, Gw] where they do not follow from the steps.
        scale: Share of the images' sides that plans and levels are about; level 0 is full resolution there.
        routes: Route that every image took through a lattice, for a method that routes.
    """

    steps: tuple[Step, ...] = ()
    known_levels: Tensor | None = None
    scale: float = 1.0
    routes: tuple[Route, ...] = ()

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


def check_logits(logits: Tensor) -> None:
    """Refuse logits that name no class.

    Raises:
        ValueError: They hold NaN or infinity.
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    if not bool(logits.detach().sum(dtype=wide).isfinite()):
        raise ValueError("the network gives NaN or infinity; check its weights, and the range of the images")


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
        """Class per pixel [N, H, W], uint8.

        Raises:
            ValueError: The logits hold NaN or infinity.
        """
        if self.computed_labels is not None:
            return self.computed_labels
        check_logits(self.logits)
        return classify(self.logits, self.size)

    def to_pil(self, index: int = 0, palette: Sequence[Colour] | None = None) -> Image.Image:
        """Return the labels of one image as a picture; with colours of its own where no palette is given."""
        return label_picture(self.labels[index].cpu(), self._palette(palette))

    def overlay(
        self, image: Tensor, opacity: float = 0.5, index: int = 0, palette: Sequence[Colour] | None = None
    ) -> Image.Image:
        """Lay the colours of the labels over an image.

        Args:
            image: The image [3, H, W], or the batch [N, 3, H, W], bytes or floats in 0..1.
            opacity: Share of the labels' colours.
            index: Which image of the batch.
            palette: Colour of every class, 0..255; made if absent.

        Raises:
            ValueError: It is no colour image of the labels' size.
        """
        one = image[index] if image.ndim == 4 else image
        return lay_over(self.labels[index].cpu(), self._palette(palette), one.detach().cpu(), opacity)

    def _palette(self, palette: Sequence[Colour] | None) -> Sequence[Colour]:
        return default_palette(self.logits.shape[1]) if palette is None else palette

    def _repr_html_(self) -> str:
        """Show the labels of every image and their work, in a notebook."""
        works = self.trace.work.tolist() if self.trace.steps else [1.0] * len(self.logits)
        return "".join(figure(self.to_pil(k), f"work {work:.3f} of dense") for k, work in enumerate(works))

    @property
    def full_logits(self) -> Tensor:
        """Logits at the size of the images [N, K, H, W]."""
        return upsample(self.logits, self.size)


def last(answers: Iterator[Prediction]) -> Prediction:
    """Return the last answer; one after the other, so that earlier features are let go."""
    return deque(answers, maxlen=1)[0]
