"""Whether an answer moves with the picture: labels of one image through windows that are moved over it.

A grid of tiles lies where the image begins, so a method may answer otherwise when the same thing stands
eight pixels further; a dense network does so too, by its strides and its borders, and is the measure.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from foveal.evaluation.evaluate import label
from foveal.evaluation.tally import Entry


def steadiness(entry: Entry, images: Sequence[Tensor], offsets: Sequence[int]) -> float:
    """Return the share of the pixels that get one label in all views.

    Args:
        entry: What segments.
        images: [C, H, W] in 0..1.
        offsets: How far views are moved, down and to the right by the same [px].

    Raises:
        ValueError: There are no images, or one is too small for the views.
    """
    most, same, seen = max(offsets), 0, 0
    for image in images:
        height, width = image.shape[1] - most, image.shape[2] - most
        if min(height, width) <= most:
            raise ValueError(
                f"an image is {image.shape[1]}x{image.shape[2]} px; views are moved by {most} px"
            )
        views = []
        for offset in offsets:
            view = image[:, offset : offset + height, offset : offset + width]
            labels = label(entry, view.contiguous())
            start = most - offset  # all views have these pixels of the image
            views.append(labels[start : start + height - most, start : start + width - most])
        stack = torch.stack(views)
        same += int((stack == stack[0]).all(0).sum())
        seen += stack[0].numel()
    if not seen:
        raise ValueError("there are no images to look at")
    return same / seen
