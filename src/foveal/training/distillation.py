"""Train a network to refine, from images alone: it learns its dense answer whatever the plan."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from foveal.calibration.adapt import Images
from foveal.data.augmentation import Augment
from foveal.data.batches import Batches
from foveal.hub.checkpoint import Model
from foveal.methods import CoarseToFine, CoarseToFineConfig
from foveal.methods.padding import device_of
from foveal.storage.labels import VOID
from foveal.training.loop import Schedule, train

CROP = 384
"""Largest side of a training view [px]."""
BATCH = 6


@dataclass(frozen=True)
class Unlabelled:
    """Images with void for labels."""

    images: Images

    def __len__(self) -> int:
        """Count the images."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return an image [3, H, W] and void [H, W]."""
        image = self.images[index]
        return image, torch.full(image.shape[1:], VOID, dtype=torch.uint8)


def distil(
    model: Model,
    images: Images,
    config: CoarseToFineConfig,
    schedule: Schedule,
    run: Path,
    report: Callable[[int, dict[str, float]], None] = lambda step, values: None,
) -> Model:
    """Train a copy of a network to answer under random refinements as the given one does densely.

    Args:
        model: The network; it stays as it is, and teaches.
        images: Images like those that will come; labels are not needed.
        config: Tile and level of the first pass.
        schedule: Length and speed.
        run: Folder of the run, for checkpoints.
        report: Called after every step.

    Returns:
        The model with the copy as its network.
    """
    network = copy.deepcopy(model.network)
    teacher = copy.deepcopy(model.network).eval().requires_grad_(False)
    level = max(1, config.coarse_level)
    method = CoarseToFine(network, tile=config.tile, coarse_level=level)
    method.teacher = teacher
    side = max(config.tile << level, CROP)
    view = Augment((side, side))
    batches, device = Batches(Unlabelled(images), view, BATCH, schedule.seed), str(device_of(network))
    train(method, batches, schedule, run, device, report)
    return replace(model, network=network)
