"""A video of a camera that turns, with exact labels: a window that moves over the frames of a still one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from foveal.data.static_camera import StaticCamera
from foveal.storage.pictures import Palette

SHARE = 2 / 3
"""Sides of the window, as a share of those of the still frames."""
SPEED = (1, 5)
"""Rows and columns that the window moves on from a frame to the next [px]; at an edge it turns back."""


@dataclass(frozen=True)
class MovingCamera:
    """Frames of a window that moves to and fro.

    Attributes:
        still: The frames below.
        share: Sides of the window, as a share of theirs, above 0 and at most 1.
        speed: Rows and columns that it moves on [px].
    """

    still: StaticCamera
    share: float = SHARE
    speed: tuple[int, int] = SPEED

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.still.name.replace("static", "moving")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.still.classes

    @property
    def palette(self) -> Palette:
        """Colours of the classes."""
        return self.still.palette

    def __len__(self) -> int:
        return len(self.still)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return a frame [3, h, w] in 0..1 and its labels [h, w].

        Raises:
            IndexError: There is no such frame.
        """
        image, labels = self.still[index]
        sides = [max(1, round(side * self.share)) for side in labels.shape]
        top, left = self.place(index)
        rows, columns = slice(top, top + sides[0]), slice(left, left + sides[1])
        return image[:, rows, columns].contiguous(), labels[rows, columns].contiguous()

    def place(self, index: int) -> tuple[int, int]:
        """Return the row and the column where the window is in a frame."""
        found = []
        for side, speed in zip(self.still.labels.shape, self.speed, strict=True):
            room = side - max(1, round(side * self.share))
            way = speed * index % (2 * room) if room else 0
            found.append(min(way, 2 * room - way))
        return found[0], found[1]
