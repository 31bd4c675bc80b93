"""Training batches: which sample comes when is a function of the step alone, so a run resumes exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Generator, Tensor


class Labelled(Protocol):
    """Anything that gives images [C, H, W] in 0..1 with labels [H, W]."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]: ...


View = Callable[[Tensor, Tensor, Generator], tuple[Tensor, Tensor]]
"""Makes a view of an image in bytes [C, H, W] and its labels [H, W], and leaves both as they are."""


class Batches:
    """Augmented batches of one main data set and, for a share of the places, of a second one.

    Args:
        main: The data set that is walked through, in a new order every epoch.
        augment: Makes views of one size from images in bytes.
        batch: Images a batch.
        seed: Determines order and views, together with the step.
        extra: Second data set, drawn from at random.
        extra_share: Share of the places in a batch that it fills.
    """

    def __init__(
        self,
        main: Labelled,
        augment: View,
        batch: int,
        seed: int,
        extra: Labelled | None = None,
        extra_share: float = 0.0,
    ) -> None:
        if len(main) == 0:
            raise ValueError("the training data set is empty")
        self.main, self.extra = main, extra
        self.augment = augment
        self.batch, self.seed, self.extra_share = batch, seed, extra_share
        self._decoded: dict[tuple[bool, int], tuple[Tensor, Tensor]] = {}

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the images [N, C, h, w] and labels [N, h, w] (int64) of a step."""
        views = [self._view(step * self.batch + place) for place in range(self.batch)]
        images, labels = zip(*views, strict=True)
        return torch.stack(images), torch.stack(labels).long()

    def epoch(self, step: int) -> float:
        """How often the main data set has been walked through before `step`."""
        return step * self.batch / len(self.main)

    def _view(self, position: int) -> tuple[Tensor, Tensor]:
        generator = Generator().manual_seed(self.seed * 1_000_003 + position)
        if self.extra is not None and float(torch.rand((), generator=generator)) < self.extra_share:
            index = int(torch.randint(len(self.extra), (), generator=generator))
            image, labels = self._sample(self.extra, index)
        else:
            image, labels = self._sample(self.main, self._order(position))
        return self.augment(image, labels, generator)

    def _order(self, position: int) -> int:
        epoch, place = divmod(position, len(self.main))
        shuffle = Generator().manual_seed(self.seed * 7_368_787 + epoch)
        return int(torch.randperm(len(self.main), generator=shuffle)[place])

    def _sample(self, source: Labelled, index: int) -> tuple[Tensor, Tensor]:
        """Decode once, then keep as bytes: decoding would cost more than a small network's step."""
        key = (source is self.extra, index)
        if key not in self._decoded:
            image, labels = source[index]
            self._decoded[key] = ((image * 255).round().to(torch.uint8), labels)
        return self._decoded[key]


def class_shares(data: Sequence[tuple[Tensor, Tensor]] | Labelled, classes: int) -> Tensor:
    """Count the share of labelled pixels per class [K] of a data set."""
    counts = torch.zeros(256, dtype=torch.float64)
    for index in range(len(data)):
        counts += torch.bincount(data[index][1].flatten().long(), minlength=256)
    counts = counts[:classes]
    return (counts / counts.sum().clamp(min=1)).float()
