"""Paired augmentation of image and labels: scale, crop, flip, colour jitter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from foveal.data.raster import GREY
from foveal.storage.labels import VOID


@dataclass(frozen=True)
class Augment:
    """Random views of a labelled image, all of one size.

    Attributes:
        crop: Height and width of what comes out [px].
        scale: Smallest and largest magnification, drawn uniformly in its logarithm.
        flip: Whether half of the views are mirrored.
        jitter: Largest relative change of brightness, contrast and saturation.
        colour: Largest relative change of each colour channel, and of the exponent of all (gamma).
    """

    crop: tuple[int, int]
    scale: tuple[float, float] = (0.5, 2.0)
    flip: bool = True
    jitter: float = 0.3
    colour: float = 0.0

    def __call__(self, image: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return a view of `image` [C, H, W], in 0..1 or as bytes, and `labels` [H, W]; its image is in 0..1.

        Only what the view shows is converted from bytes: a large image costs no more than a small one.
        What lies outside the image becomes its mean colour, and void in the labels.
        """

        def draw(low: float, high: float) -> float:
            return low + (high - low) * float(torch.rand((), generator=generator))

        low, high = (torch.tensor(s).log().item() for s in self.scale)
        scale = float(torch.tensor(draw(low, high)).exp())
        window = (max(1, round(self.crop[0] / scale)), max(1, round(self.crop[1] / scale)))
        top, left = (
            round(draw(min(0, free), max(0, free)))
            for free in (image.shape[1] - window[0], image.shape[2] - window[1])
        )
        mirror = self.flip and draw(0, 1) < 0.5
        image, labels = _cut(image, labels, (top, left), window)
        image, labels = _resize(image, labels, self.crop)
        if mirror:
            image, labels = image.flip(-1), labels.flip(-1)
        factors = [draw(1 - self.jitter, 1 + self.jitter) for _ in range(3)]
        image = _jitter(image, *factors)
        if self.colour:
            gains = [draw(1 - self.colour, 1 + self.colour) for _ in image]
            image = _tint(image, gains, 1 + self.colour * draw(-1, 1))
        return image, labels


def _cut(
    image: Tensor, labels: Tensor, corner: tuple[int, int], window: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    height, width = labels.shape
    (top, left), (rows, columns) = corner, window
    inside = (slice(max(0, top), min(height, top + rows)), slice(max(0, left), min(width, left + columns)))
    image, labels = image[:, inside[0], inside[1]], labels[inside]
    if image.dtype == torch.uint8:
        image = image.float() / 255
    if tuple(labels.shape) == window:
        return image, labels
    above, before = max(0, -top), max(0, -left)
    rim = (before, columns - before - labels.shape[1], above, rows - above - labels.shape[0])
    mean = image.mean((1, 2), keepdim=True)
    return F.pad(image - mean, rim) + mean, F.pad(labels, rim, value=VOID)


def _resize(image: Tensor, labels: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    if tuple(labels.shape) == size:
        return image, labels
    shrinks = labels.shape[0] > size[0]
    image = F.interpolate(image[None], size=size, mode="bilinear", align_corners=False, antialias=shrinks)[0]
    rows, columns = (
        ((torch.arange(new) + 0.5) * old / new).long().clamp(max=old - 1)
        for old, new in zip(labels.shape, size, strict=True)
    )
    return image, labels[rows[:, None], columns[None, :]]


def _jitter(image: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    if len(image) == 3:
        grey = (image * torch.tensor(GREY).view(3, 1, 1)).sum(0, keepdim=True)
    else:
        grey = image.mean(0, keepdim=True)
    image = grey + saturation * (image - grey)
    mean = grey.mean()
    return ((mean + contrast * (image - mean)) * brightness).clamp(0, 1)


def _tint(image: Tensor, gains: list[float], gamma: float) -> Tensor:
    """Scale each channel and raise all to a power: another light, another camera."""
    return (image.pow(gamma) * torch.tensor(gains).view(-1, 1, 1)).clamp(0, 1)
