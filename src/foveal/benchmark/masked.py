"""A method under a mask: what is not wanted costs nothing, and has no label."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from foveal.geometry.mask import Mask
from foveal.methods import AdaptiveSegmenter, Prediction
from foveal.storage.labels import VOID


@dataclass(frozen=True)
class Masked:
    """A method that leaves out what a mask does not want.

    Attributes:
        method: The method.
        mask: What is wanted of a batch of images.
    """

    method: AdaptiveSegmenter
    mask: Mask

    def __call__(self, image: Tensor) -> Prediction:
        """Segment images [N, C, H, W] where they are wanted."""
        return self.method.masked(image, self.mask.cells)

    def labels(self, image: Tensor) -> Tensor:
        """Return the class per pixel [N, H, W], uint8; void where nothing is wanted."""
        found = self(image).labels
        return found.masked_fill(~self.mask.pixels.to(found.device), VOID)
