"""What an adaptive model says about images, and what it spent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypedDict, Unpack, overload

import torch
from torch import Tensor, nn

from foveal.adaptive import images as given_images
from foveal.cost import count_macs
from foveal.geometry.plan import SKIP, Plan, grid
from foveal.methods import Prediction
from foveal.storage.labels import VOID
from foveal.storage.pictures import Colour, figure, label_picture, lay_over

if TYPE_CHECKING:
    from PIL import Image

    from foveal.adaptive.images import Images, OneImage, OneMask


@dataclass(frozen=True, eq=False)
class AdaptiveResult:
    """What an adaptive model says about a batch of images, and what it spent.

    Attributes:
        labels: Class per pixel [N, H, W], uint8; 255 where a mask left places out.
        plan: The last plan, of the padded images; None if whole images ran, or a program under a mask.
        levels: Level that the answer comes from, per cell [N, Gh, Gw]; 0 full, 1 half, ..., -1 not computed.
        work: Share of the dense work per image [N].
        reason: Why the dense network ran, on tiles under a mask; empty if it did not.
        predicted_ms: Time that the cost model of this machine predicts per image [ms]; None without one.
        tile: Side of a cell [px].
        classes: Names of the classes.
        palette: Colour of every class, 0..255.
        prediction: Logits and decisions of the padded images; None if nothing was wanted.
        chosen: Who chose the settings, and why; empty if the model's own ran.
    """

    labels: Tensor
    plan: Plan | None
    levels: Tensor
    work: Tensor
    reason: str = ""
    predicted_ms: float | None = None
    tile: int = 32
    classes: tuple[str, ...] = ()
    palette: tuple[Colour, ...] = ()
    prediction: Prediction | None = field(default=None, repr=False)
    _rerun: Callable[[], object] | None = field(default=None, repr=False)
    chosen: str = ""

    @cached_property
    def confidence(self) -> Tensor:
        """Probability of the label per pixel [N, H, W]; 0 where there is none. Computed when asked for."""
        if self.prediction is None:
            return torch.zeros(self.labels.shape)
        height, width = self.labels.shape[1:]
        logits = self.prediction.full_logits[:, :, :height, :width].float()
        return logits.softmax(1).amax(1).masked_fill((self.labels == VOID).to(logits.device), 0)

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates that ran [MAC]; counted by running once more, when asked for."""
        return 0 if self._rerun is None else count_macs(self._rerun).total

    @property
    def scale(self) -> float:
        """Share of the images' sides that they were shrunk to first; `levels` and `plan` count from there."""
        return 1.0 if self.prediction is None else self.prediction.trace.scale

    @property
    def logits(self) -> Tensor:
        """Logits at the size of the images [N, K, H, W].

        Raises:
            ValueError: Nothing was computed.
        """
        if self.prediction is None:
            raise ValueError("no logits were computed: the mask wants nothing")
        height, width = self.labels.shape[1:]
        return self.prediction.full_logits[:, :, :height, :width]

    def to_pil(self, index: int = 0) -> Image.Image:
        """Return the labels of one image as a picture with a palette."""
        return label_picture(self.labels[index].cpu(), self.palette)

    def overlay(self, image: OneImage, opacity: float = 0.5, index: int = 0) -> Image.Image:
        """Lay the colours of the labels over an image.

        Args:
            image: The image as it was given: [3, H, W] or the batch [N, 3, H, W], bytes or floats in 0..1, an
                array, a file, ...
            opacity: Share of the labels' colours; places without a label stay as they are.
            index: Which image of the batch.

        Raises:
            ValueError: It is no colour image of the labels' size.
        """
        given = given_images.read(image, 3)
        one = given[index] if given.ndim == 4 else given
        return lay_over(self.labels[index].cpu(), self.palette, one.detach().cpu(), opacity)

    def _repr_html_(self) -> str:
        """Show the labels of every image and what they cost, in a notebook."""
        figures = []
        for index, work in enumerate(self.work.tolist()):
            found = [k for k in self.labels[index].unique().tolist() if k < len(self.classes)]
            text = f"work {work:.3f} of dense" + (f" ({self.reason})" if self.reason else "")
            figures.append(figure(self.to_pil(index), text, ", ".join(self.classes[k] for k in found)))
        return "".join(figures)

    def __str__(self) -> str:
        """Say size, work and why."""
        count, height, width = self.labels.shape
        works = ", ".join(f"{work:.3f}" for work in self.work.tolist())
        return f"{count} x {height}x{width} px, work {works}" + (f": {self.reason}" if self.reason else "")


def levels_of(prediction: Prediction, size: tuple[int, int], tile: int) -> Tensor:
    """Return the levels of an answer, cropped to the cells of images of `size` [px]."""
    rows, columns = grid(size, tile)
    found = prediction.trace.levels
    if found is None:
        return torch.zeros(len(prediction.logits), rows, columns, dtype=torch.int8)
    return found[:, :rows, :columns]


def nothing_wanted(
    wanted: Tensor, tile: int, classes: tuple[str, ...], palette: tuple[Colour, ...]
) -> AdaptiveResult:
    """Say that nothing was computed, for a mask of pixels [N, H, W] that wants nothing."""
    count, height, width = wanted.shape
    labels = torch.full(wanted.shape, VOID, dtype=torch.uint8)
    levels = torch.full((count, *grid((height, width), tile)), SKIP, dtype=torch.int8)
    work = torch.zeros(count, dtype=torch.float64)
    reason = "the mask wants nothing"
    return AdaptiveResult(labels, None, levels, work, reason, tile=tile, classes=classes, palette=palette)


class Limits(TypedDict, total=False):
    """What may be given with images, as of `AdaptiveModel.forward`; exactly one of the first four."""

    budget: float | None
    latency_ms: float | None
    risk: float | None
    threshold: float | None
    mask: OneMask | Sequence[OneMask] | None
    mask_share: float
    mask_border: str
    always_adapt: bool


class TypedCall(nn.Module):
    """A module whose call returns one result for a batch, and a list of them for a list of images."""

    if TYPE_CHECKING:  # what `forward` returns, by what it is given

        @overload
        def __call__(  # type: ignore[overload-overlap] # the name of a file is a sequence too
            self, image: OneImage, **limits: Unpack[Limits]
        ) -> AdaptiveResult: ...

        @overload
        def __call__(self, image: Sequence[OneImage], **limits: Unpack[Limits]) -> list[AdaptiveResult]: ...

        def __call__(self, image: Images, **limits: Unpack[Limits]) -> AdaptiveResult | list[AdaptiveResult]:
            """Segment images: see `forward`."""
