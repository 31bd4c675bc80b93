"""Trains a few methods, in as many processes as were started; for test_distributed."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Generator, Tensor

from foveal.data.augmentation import Augment
from foveal.data.batches import Batches
from foveal.methods import Dense, SegBlocks, TrainableSegmenter
from foveal.models import create_model
from foveal.policies import RandomPlans, create_policy
from foveal.training.distributed import joined
from foveal.training.loop import Schedule, train
from samples import Scenes, headless

CLASSES = len(Scenes.classes)
NAMES = ("dense", "tiles", "random")


class PartlyLabelled(Scenes):
    """Has more labelled pixels in some images than in others, so that a mean of means is not the mean."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, labels = self.items[index]
        labels = labels.clone()
        labels[: 12 * index] = 255
        return image, labels


def view(image: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Compute in double precision: Adam makes a whole step of a gradient that is nothing but rounding."""
    image, labels = Augment((64, 64), (0.9, 1.1))(image, labels, generator)
    return image.double(), labels


def method_of(name: str) -> TrainableSegmenter:
    torch.manual_seed(5)
    network = headless(CLASSES) if name == "tiles" else create_model("swiftnet_nano", CLASSES)
    weight = torch.linspace(0.2, 3.0, CLASSES)
    policy = RandomPlans((32,), 2, (0.05, 0.6)) if name == "random" else create_policy("detail", 0.5, 32, 1)
    method = Dense(network) if name == "dense" else SegBlocks(network, policy, consistency=0.5)
    method.double().class_weight = weight
    return method


def run(folder: Path, names: tuple[str, ...] = NAMES) -> None:
    torch.set_num_threads(1)
    sys.modules["torch.utils.tensorboard"] = None  # type: ignore[assignment]
    batches = Batches(PartlyLabelled(4), view, 4, seed=1)
    schedule = Schedule(4, 1e-3, warmup=2, average=0.6, save_every=2, seed=2)
    with joined("cpu") as device:
        for name in names:
            train(method_of(name), batches, schedule, folder / name, device)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
