"""What is computed: one image, one network, one plan; and where windows and their cells lie."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from foveal.data.raster import ImageFormat
from foveal.inference.large.grid import Cut
from foveal.inference.large.mask import Mask
from foveal.inference.large.network import WindowNetwork
from foveal.inference.large.parts import Parts
from foveal.inference.large.reach import CONTEXT
from foveal.inference.large.source import Source, Window
from foveal.inference.large.uncertainty import Uncertainty
from foveal.methods.coarse_to_fine import CoarseToFineConfig

LABELS, CONFIDENCE = "labels", "confidence"
COARSE, FINE, WRITE = "coarse", "fine", "write"


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        stage: "coarse", "fine" or "write".
        pixels: Pixels that are done in this stage.
        total: All of them that this process does.
        tiles: Tiles that it has computed so far.
        seconds: Time since the stage began [s].
    """

    stage: str
    pixels: int
    total: int
    tiles: int
    seconds: float

    @property
    def speed(self) -> float:
        """Megapixels a second."""
        return self.pixels / 1e6 / max(self.seconds, 1e-9)

    @property
    def left(self) -> float:
        """Time that the stage will still take at this pace [s]."""
        return self.seconds * (self.total - self.pixels) / max(self.pixels, 1)


Report = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Say nothing."""


@dataclass
class Task:
    """What is computed.

    Attributes:
        source: The image.
        network: What runs on windows.
        config: Settings of coarse to fine.
        reading: How values become an image.
        mask: What is wanted.
        cut: Windows and blocks.
        reach: Pixels beyond a border that decide labels; None if the network sees whole maps.
        parts: What is found so far.
        confidence: Whether probabilities are wanted.
        report: Told how far it is.
        shard: Which windows this process does: (k, n) for every n-th from the k-th.
        tiles: Tiles that this process has computed.
    """

    source: Source
    network: WindowNetwork
    config: CoarseToFineConfig
    reading: ImageFormat
    mask: Mask
    cut: Cut
    reach: int | None
    parts: Parts
    confidence: bool = False
    report: Report = silent
    shard: tuple[int, int] = (0, 1)
    tiles: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.uncertainty = Uncertainty(self.config.policy)

    @property
    def level(self) -> int:
        """Level of the coarse pass."""
        return self.cut.level

    @property
    def fine_look(self) -> int:
        """Pixels around a place within which refined cells decide its labels.

        That is as far as the network looks, and as far as the coarse answer beside a refined cell is mixed
        with it: by the mean of as many fine samples as one coarse one is wide.
        """
        return self._look + (0 if self.is_dense else self.network.stride << self.level)

    @property
    def coarse_look(self) -> int:
        """Pixels around a place within which the coarse pass decides its labels: samples are 2^level as wide.

        They are enlarged to the network's stride before they are enlarged to pixels. A network that sees
        whole maps gets twice its context.
        """
        if self.reach is None:
            return 2 * CONTEXT
        return (self._look << self.level) + (self.network.stride << self.level) + self.network.stride

    @property
    def _look(self) -> int:
        return CONTEXT if self.reach is None else self.reach

    @property
    def is_dense(self) -> bool:
        """Whether all that is wanted runs at full resolution: there is no coarse pass."""
        return self.level == 0 or (self.config.budget >= 1 and self.config.threshold is None)

    def part(self, stage: str, window: Window) -> str:
        """Return the name of what a window came to."""
        return f"{stage}-{window.top // self.cut.window}-{window.left // self.cut.window}"

    def steps(self, pixels: int) -> int:
        """Return how many cells so many pixels are."""
        return -(-pixels // self.cut.tile)

    def cells_within(self, around: Window, window: Window) -> tuple[slice, slice]:
        """Return the cells of a window, counted from those of another one around it."""
        tile = self.cut.tile
        top, left = (window.top - around.top) // tile, (window.left - around.left) // tile
        return slice(top, top + -(-window.height // tile)), slice(left, left + -(-window.width // tile))

    def put(self, cells: Tensor, around: Window, window: Window) -> Tensor:
        """Put the cells of a window into the grid of another one around it."""
        rows, columns = (self.steps(side) for side in around[2:])
        out = torch.zeros(rows, columns, dtype=torch.bool)
        out[self.cells_within(around, window)] = cells
        return out

    def ends(self, window: Window) -> tuple[int | None, int | None]:
        """Return the pixels from a window's start to the padded image's end, where the image ends there."""
        multiple = self.network.multiple << self.level if self.network.multiple > 1 else 1
        height, width = (side - side % -multiple for side in self.cut.size)
        down = height - window.top if window.bottom == self.cut.size[0] else None
        return down, width - window.left if window.right == self.cut.size[1] else None

    def pixels(self, cells: Tensor, size: tuple[int, int]) -> Tensor:
        """Spread cells over pixels [h, w]."""
        tile = self.cut.tile
        return cells.repeat_interleave(tile, 0).repeat_interleave(tile, 1)[: size[0], : size[1]]

    def fitted(self, cells: Tensor, image: Tensor) -> Tensor:
        """Return cells for a padded image [1, C, h, w]: nobody wants those that padding has made."""
        out = torch.zeros(self.steps(image.shape[2]), self.steps(image.shape[3]), dtype=torch.bool)
        out[: cells.shape[0], : cells.shape[1]] = cells
        return out


class Clock:
    """Says how far a stage is.

    Args:
        task: What is computed.
        stage: Its name.
        todo: What this process has still to do.
    """

    def __init__(self, task: Task, stage: str, todo: list[Window]) -> None:
        self._task, self._stage, self._done = task, stage, 0
        self._total = sum(w.height * w.width for w in todo)
        self._start = time.perf_counter()

    def add(self, window: Window) -> None:
        """Count a window that is done."""
        self._done += window.height * window.width
        seconds = time.perf_counter() - self._start
        self._task.report(Progress(self._stage, self._done, self._total, self._task.tiles, seconds))
