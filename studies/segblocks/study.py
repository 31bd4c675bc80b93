"""What a study of a paper is: its settings, and what the layers above lend it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

Palette = Sequence[tuple[int, int, int]]


@dataclass(frozen=True)
class Study:
    """What is reproduced with which networks, on which images, how thoroughly.

    Attributes:
        out: Folder of everything that is written.
        data: Labelled images, KIND:PATH; empty for generated street scenes.
        split: Split that is evaluated.
        train_split: Split that the trainings inside the experiments use.
        models: Trained dense networks, names or paths; several of one architecture are seeds of it. One is
            trained if there is none.
        segblocks: Models that were trained with a policy, for any targets and seeds. Policies are trained on
            the dense networks if there are none.
        network: Architecture that is trained if no model is given.
        targets: Shares of the blocks at high resolution that policies are trained for.
        scale: Height and width of the images where no labels are needed, and of generated scenes [px].
        block: Side of the blocks of the policies that are trained here [px].
        policy_shape: Width and layers of those policies.
        limit: Number of images that are evaluated; None for all.
        timed: Number of images that are timed.
        dense_steps: Steps of training a dense network.
        policy_steps: Steps of training a policy on a network that stays as it is.
        batch: Images a step.
        crop: Side of a training view [px].
        seeds: How many dense networks, and policies of every kind, are trained.
        quick: Whether the experiments without settings of their own should be brief.
    """

    out: Path
    data: str = ""
    split: str = "test"
    train_split: str = "train"
    models: tuple[str, ...] = ()
    segblocks: tuple[str, ...] = ()
    network: str = "swiftnet_nano"
    targets: tuple[float, ...] = (0.4, 0.2)
    scale: tuple[int, int] = (360, 480)
    block: int = 64
    policy_shape: tuple[int, int] = (64, 4)
    limit: int | None = None
    timed: int = 16
    dense_steps: int = 1500
    policy_steps: int = 300
    batch: int = 8
    crop: int = 384
    seeds: int = 1
    quick: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the folder."""
        return {key: value for key, value in asdict(self).items() if key != "out"}


@dataclass(frozen=True)
class Tools:
    """What the engine needs from the layers above it.

    Attributes:
        train: Trains what a recipe file says in a folder of a run; returns the model's file.
        paint: Lays the colours of labels [H, W] over an image [3, H, W].
        plan: Draws levels [Gh, Gw] of a tile side [px] over an image, with a caption.
        command: What the user typed, for the records.
    """

    train: Callable[[Path, Path], Path]
    paint: Callable[[Tensor, Tensor, Palette], Tensor]
    plan: Callable[[Tensor, Tensor, int, str], Image.Image]
    command: str = ""


def work_of(share: float) -> float:
    """Return the work when a share of the blocks runs at full resolution and the rest at half."""
    return share + (1 - share) / 4
