"""The images of a study: a data set that was given, or street scenes that are drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from foveal.data.dataset import Dataset, open_dataset
from foveal.data.synthetic import street
from studies.segblocks.scenes import write_scenes
from studies.segblocks.study import Study

TRAIN_SCENES, TEST_SCENES = 32, 24
"""Numbers of generated scenes, if there is no data set."""
STREET = 1000
"""Seed of the first scene of a batch."""


class Images:
    """Images of a study, with labels.

    Args:
        study: The settings.
        report: Called with what is done next.
    """

    def __init__(self, study: Study, report: Callable[[str], None]) -> None:
        self.study, self.report = study, report

    @cached_property
    def spec(self) -> str:
        """Data set as KIND:PATH; street scenes are drawn if none was given."""
        if self.study.data:
            return self.study.data
        folder = self.study.out / "street"
        self.report(f"{TRAIN_SCENES + TEST_SCENES} street scenes")
        write_scenes(folder, {"train": TRAIN_SCENES, "test": TEST_SCENES}, self.study.scale)
        return f"folder:{folder}"

    @cached_property
    def evaluated(self) -> Dataset:
        """Images that are evaluated."""
        data = open_dataset(self.spec, self.study.split if self.study.data else "test")
        return spread(data, self.study.limit or len(data))

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the first image [px]."""
        image, _ = self.evaluated[0]
        return image.shape[1], image.shape[2]


def spread(data: Dataset, count: int) -> Dataset:
    """Take images of a data set at equal distances; successive ones are often frames of one street."""
    total = len(data)
    count = min(count, total)
    return replace(data, pairs=tuple(data.pairs[k * total // count] for k in range(count)))


def single(data: Dataset, index: int) -> Dataset:
    """Take one image of a data set, as a data set."""
    return replace(data, pairs=(data.pairs[index],))


def streets(count: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Draw scenes of a size [px]: images [N, 3, H, W] and labels [N, H, W]."""
    images, labels = zip(*(street(STREET + k, size) for k in range(count)), strict=True)
    return torch.stack(images), torch.stack(labels)
