"""Frames under a mask: what is not wanted is held still, so that a method that remembers keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from foveal.calibration.latency import Setup
from foveal.geometry.mask import read_mask
from foveal.inference.video.paced import Paced
from foveal.methods import Prediction
from foveal.storage.labels import VOID
from foveal.tiles.memory import Memory


@dataclass
class MaskedFrames:
    """Segments the frames of a video where they are wanted.

    A method that remembers sees the same pixels where nothing is wanted, those of the first frame, and
    computes nothing there from the second on. Any other leaves these places out of every frame; one that
    takes no mask is replaced by the network on tiles at full resolution.

    Attributes:
        paced: What segments whole frames.
        setup: What it is made from.
        wanted: Wanted pixels [H, W], bool.
        share: A cell is wanted if more than this share of its pixels is.
    """

    paced: Paced
    setup: Setup
    wanted: Tensor
    share: float = 0.0
    _held: Tensor | None = field(default=None, init=False)

    def __call__(self, image: Tensor, memory: Memory | None = None) -> Prediction:
        """Segment the next frame [1, 3, H, W].

        Raises:
            ValueError: It has another size than the mask; or as of the method.
        """
        size = (image.shape[2], image.shape[3])
        if tuple(self.wanted.shape) != size:
            height, width = self.wanted.shape
            raise ValueError(
                f"the mask has {width} x {height} px and the frame {size[1]} x {size[0]}; give equal sizes"
            )
        mask = read_mask(self.wanted, image, size, self.setup.tile, self.share)
        if self.paced.remembers:
            if self._held is None or memory is None:
                self._held = image
            found = self.paced(torch.where(mask.pixels[:, None], image, self._held), memory)
        else:
            tiled = self.setup.make_for_mask(1.0, dense=True) if self.setup.instead else self.paced.next(size)
            found = tiled.masked(image, mask.cells)
        labels = found.labels.masked_fill(~mask.pixels.to(found.labels.device), VOID)
        return replace(found, computed_labels=labels)

    def took(self, work: float, ms: float) -> None:
        """Say what the frame took."""
        self.paced.took(work, ms)
