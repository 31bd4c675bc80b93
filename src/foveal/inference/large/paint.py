"""A coarse answer at full resolution, part by part: its logits, labels, and how sure they are.

Coarse logits are enlarged bilinearly to the stride that the network has at full resolution, and these to
pixels, as in an image that is computed whole. Where a coarse sample and all around it name the same class,
every mixture of them does: such places are filled, and only the others are enlarged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.inference.large.source import Window
from foveal.ops import classify, upsample

SURE = 255
"""Confidence 1, as a byte."""


@dataclass(frozen=True)
class Painting:
    """A window of a coarse answer.

    Attributes:
        logits: The answer [1, K, rows, columns], with at least a sample around the window where there is one.
        part: The window in samples of the answer.
        size: Its height and width at full resolution [px].
        stride: Pixels per sample of logits at full resolution.
        level: Level of the answer.
        ends: Pixels from the window's start to the end of the image, padding included, down and across,
            where the image ends with the window; else None.
        known: Which samples of the answer were computed [rows, columns], bool; all if None. The others are 0,
            at the network's stride too.
    """

    logits: Tensor
    part: Window
    size: tuple[int, int]
    stride: int
    level: int
    ends: tuple[int | None, int | None]
    known: Tensor | None = None

    @property
    def side(self) -> int:
        """Pixels per coarse sample."""
        return self.stride << self.level

    def labels(self) -> Tensor:
        """Return the class per pixel [h, w], uint8."""
        named = self.logits[0].argmax(0).float()[None, None]
        around = F.pad(named, (1, 1, 1, 1), mode="replicate")
        mixed = (F.max_pool2d(around, 3, 1) != -F.max_pool2d(-around, 3, 1))[0, 0]
        inside = slice(self.part.top, self.part.bottom), slice(self.part.left, self.part.right)
        out = named[0, 0][inside].to(torch.uint8)
        out = out.repeat_interleave(self.side, 0).repeat_interleave(self.side, 1)
        out = out[: self.size[0], : self.size[1]].contiguous()
        for y, row in enumerate(mixed[inside]):
            for first, last in _runs(row):
                composed, (top, left) = self._composed(Window(y, first, 1, last - first))
                whole = classify(composed, self._enlarged(composed))[0, top:, left:]
                place = out[y * self.side : (y + 1) * self.side, first * self.side : last * self.side]
                place.copy_(whole[: place.shape[0], : place.shape[1]])
        return out

    def confidence(self) -> Tensor:
        """Return the probability of the labels [h, w] as bytes, 255 for 1, line by line."""
        out = torch.empty(self.size, dtype=torch.uint8)
        for y in range(self.part.height):
            composed, (top, left) = self._composed(Window(y, 0, 1, self.part.width))
            sure = upsample(composed, self._enlarged(composed))[0].softmax(0).amax(0)[top:, left:]
            place = out[y * self.side : (y + 1) * self.side]
            place.copy_((sure[: place.shape[0], : place.shape[1]] * SURE).round().to(torch.uint8))
        return out

    def bands(self, rows: int) -> Iterator[Tensor]:
        """Give the logits at the network's stride [1, K, h, w], so many coarse rows at once."""
        for y in range(0, self.part.height, rows):
            count = min(rows, self.part.height - y)
            composed, (top, left) = self._composed(Window(y, 0, count, self.part.width))
            down, across = top // self.stride, left // self.stride
            tall = min(count << self.level, -(-self.size[0] // self.stride) - (y << self.level))
            wide = -(-self.size[1] // self.stride)
            yield composed[:, :, down : down + tall, across : across + wide]

    def _composed(self, inner: Window) -> tuple[Tensor, tuple[int, int]]:
        """Enlarge some samples of the window to the network's stride, with one around where there is one.

        Returns:
            Logits at that stride; and the first pixel of the samples in what they are enlarged to.
        """
        times, rows, columns = 1 << self.level, *self.logits.shape[2:]
        first = self.part.top + inner.top, self.part.left + inner.left
        last = first[0] + inner.height, first[1] + inner.width
        top, left = max(0, first[0] - 1), max(0, first[1] - 1)
        crop = self.logits[:, :, top : min(rows, last[0] + 1), left : min(columns, last[1] + 1)]
        if times > 1:
            crop = F.interpolate(crop, scale_factor=times, mode="bilinear", align_corners=False)
            if self.known is not None:
                inside = self.known[top : top + crop.shape[2] // times, left : left + crop.shape[3] // times]
                crop = crop * inside.repeat_interleave(times, 0).repeat_interleave(times, 1)
        places = []
        for axis, skipped in ((0, inner.top), (1, inner.left)):
            before = int(first[axis] > 0)
            count = (last[axis] - first[axis]) * times + before + 1
            if (stop := self.ends[axis]) is not None:
                count = min(count, -(-stop // self.stride) - skipped * times + before)
            start = (times - 1) * before
            places.append(slice(start, start + count))
        shift = tuple(self.stride if start > 0 else 0 for start in first)
        return crop[:, :, places[0], places[1]].contiguous(), (shift[0], shift[1])

    def _enlarged(self, logits: Tensor) -> tuple[int, int]:
        return logits.shape[2] * self.stride, logits.shape[3] * self.stride


def _runs(row: Tensor) -> list[tuple[int, int]]:
    """Return first and one past the last of every run of marked entries [n]."""
    edges = torch.diff(F.pad(row.int(), (1, 1)))
    return list(
        zip((edges == 1).nonzero()[:, 0].tolist(), (edges == -1).nonzero()[:, 0].tolist(), strict=True)
    )
