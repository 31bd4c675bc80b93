"""A video of a camera that stands still, made of real photos: parts of some move over another.

The labels are exact: those of the photo below, and of the parts that move over it.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.data.pairs import Dataset
from foveal.storage.labels import VOID
from foveal.storage.pictures import Palette

SMALLEST, LARGEST = 0.001, 0.02
"""Share of the photo that a part may cover."""
WIDEST = 0.35
"""Largest side of a part, as a share of the photo's."""
TRIED = 40
"""Photos in which parts are looked for."""
SPEEDS = (1.0, 4.0)
"""Slowest and fastest part [px a frame]."""
MOVING = ("car", "pedestrian", "person", "rider", "bicyclist", "bicycle", "motorcycle")
"""Classes of things that move by themselves, as the street data sets name them."""


@dataclass(frozen=True)
class Part:
    """A thing cut out of a photo, and how it moves.

    Attributes:
        pixels: [3, h, w] in 0..1.
        mask: Which of them belong to it [h, w], bool.
        label: Its class.
        row: Row of its top [px].
        start: Column where it begins [px].
        speed: Columns that it moves on from a frame to the next, below 0 to the left [px].
    """

    pixels: Tensor
    mask: Tensor
    label: int
    row: int
    start: float
    speed: float


@dataclass(frozen=True)
class StaticCamera:
    """Frames of a still background with parts that move over it, again and again.

    Attributes:
        name: What reports call it.
        classes: Names of the classes.
        palette: Colours of the classes.
        background: The photo below [3, H, W] in 0..1.
        labels: Its labels [H, W].
        parts: What moves, the last one in front.
        frames: Number of frames.
        noise: Deviation of the noise of every pixel of every frame [0..1].
    """

    name: str
    classes: tuple[str, ...]
    palette: Palette
    background: Tensor
    labels: Tensor
    parts: tuple[Part, ...]
    frames: int
    noise: float = 0.0

    def __len__(self) -> int:
        return self.frames

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return a frame [3, H, W] in 0..1, in 256 levels, and its labels [H, W], uint8.

        Raises:
            IndexError: There is no such frame.
        """
        if not 0 <= index < self.frames:
            raise IndexError(f"frame {index} of {self.frames}")
        image, labels = self.background.clone(), self.labels.clone()
        for part in self.parts:
            _paste(part, index, image, labels)
        if self.noise:
            generator = torch.Generator().manual_seed(index)
            image += self.noise * torch.randn(image.shape, generator=generator)
        return (image.clamp(0, 1) * 255).round() / 255, labels


def static_camera(
    photos: Dataset, frames: int = 60, parts: int = 3, seed: int = 0, noise: float = 0.0
) -> StaticCamera:
    """Make a video from labelled photos.

    Args:
        photos: Photos with labels; the first one that is drawn is the background.
        frames: Number of frames.
        parts: Number of things that move.
        seed: Of what is drawn.
        noise: Deviation of the noise of every pixel [0..1].

    Raises:
        ValueError: There are too few photos of one size, or no things that could move.
    """
    source = Random(seed)
    order = source.sample(range(len(photos)), min(len(photos), TRIED))
    background, labels = photos[order[0]]
    if len(background) != 3:
        raise ValueError(f"{photos.name} has images of {len(background)} channels; give colour images")
    moving = {k for k, name in enumerate(photos.classes) if name in MOVING} or set(range(len(photos.classes)))
    found: list[Part] = []
    for index in order[1:]:
        image, target = photos[index]
        if image.shape == background.shape:
            found += _cut(image, target, moving, source)
        if len(found) >= 4 * parts:
            break
    if not found:
        raise ValueError(f"{photos.name} shows nothing that could be moved; give photos of streets")
    chosen = tuple(source.sample(found, min(parts, len(found))))
    name = f"{photos.name}, static camera"
    return StaticCamera(name, photos.classes, photos.palette, background, labels, chosen, frames, noise)


def _paste(part: Part, index: int, image: Tensor, labels: Tensor) -> None:
    """Put a part where it is in a frame: it leaves at one side, and comes back at the other."""
    height, width = part.mask.shape
    track = labels.shape[1] + width
    left = int((part.start + part.speed * index) % track) - width
    first, last = max(0, left), min(labels.shape[1], left + width)
    if first >= last:
        return
    rows, columns = slice(part.row, part.row + height), slice(first, last)
    inside = part.mask[:, first - left : last - left]
    image[:, rows, columns] = torch.where(
        inside, part.pixels[:, :, first - left : last - left], image[:, rows, columns]
    )
    labels[rows, columns][inside] = part.label


def _cut(image: Tensor, target: Tensor, classes: set[int], source: Random) -> list[Part]:
    """Cut the connected things of some classes out of a photo, if they are neither tiny nor huge."""
    found, area = [], target.numel()
    for label in sorted(set(target.unique().tolist()) & classes - {VOID}):
        regions = _regions(target == label)
        for number in regions[regions > 0].unique().tolist():
            mask = regions == number
            if not SMALLEST <= int(mask.sum()) / area <= LARGEST:
                continue
            rows, columns = (mask.any(axis).nonzero().flatten() for axis in (1, 0))
            box = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
            sides = box[0].stop - box[0].start, box[1].stop - box[1].start
            if sides[0] > WIDEST * target.shape[0] or sides[1] > WIDEST * target.shape[1]:
                continue
            speed = source.uniform(*SPEEDS) * source.choice((-1, 1))
            start = source.uniform(0, target.shape[1] + sides[1])
            pixels = image[:, box[0], box[1]].clone()
            found.append(Part(pixels, mask[box].clone(), label, box[0].start, start, speed))
    return found


def _regions(mask: Tensor) -> Tensor:
    """Number the connected regions of a mask [H, W], from 1; 0 outside.

    Every pixel takes the largest number among its neighbours until nothing changes.
    """
    numbers = torch.arange(1.0, mask.numel() + 1).view(mask.shape) * mask
    while True:
        grown = F.max_pool2d(numbers[None, None], 3, 1, 1)[0, 0] * mask
        if torch.equal(grown, numbers):
            return numbers.long()
        numbers = grown
