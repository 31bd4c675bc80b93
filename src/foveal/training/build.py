"""Method, batches and schedule of a run, built from a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import cast

import torch
from torch import nn

from foveal.adaptive.opening import open_model
from foveal.data.augmentation import Augment
from foveal.data.batches import Batches, class_shares
from foveal.data.dataset import Dataset, open_dataset
from foveal.data.synthetic import StreetScenes
from foveal.hub.card import Card
from foveal.hub.checkpoint import save_model
from foveal.methods import METHODS, Aim, TrainableSegmenter
from foveal.methods.parts import parts_of
from foveal.models import SegmentationNetwork
from foveal.models.weights import calibrate_norms, load_encoder
from foveal.objectives.segmentation import balanced_weights
from foveal.training.config import Recipe
from foveal.training.loop import Schedule, resumed_step
from foveal.training.networks import create_adapted, create_plain, is_plain, recipe_format, save_adapted

CALIBRATION_BATCHES = 4


def build_run(recipe: Recipe, run: Path) -> tuple[TrainableSegmenter, Batches, Schedule, Dataset]:
    """Make the method, the batches and the schedule of a training run.

    Raises:
        ValueError: A name, file or data set of the recipe does not exist or does not fit.
    """
    torch.manual_seed(recipe.seed)
    data, train = recipe.data, recipe.train
    dataset = open_dataset(data.train, data.split, recipe_format(recipe), data.classes)
    if data.scenes and dataset.classes != StreetScenes.classes:
        raise ValueError(
            f"data.scenes have the {len(StreetScenes.classes)} classes of CamVid, {dataset.name} has others; "
            "set data.scenes to 0"
        )
    scenes = StreetScenes(data.scenes, (360, 480), recipe.seed) if data.scenes else None
    view = Augment(data.crop, data.scale, jitter=data.jitter, colour=data.colour)
    batches = Batches(dataset, view, train.batch, recipe.seed, scenes, data.scenes_share)
    network = _network(recipe, dataset, batches, resumed_step(run) == 0)
    weight = balanced_weights(class_shares(dataset, len(dataset.classes)), train.class_balance)
    shared = {f.name: getattr(train, f.name) for f in fields(Schedule) if f.name in type(train).model_fields}
    frozen = train.freeze_norms or recipe.method.freezes_network
    schedule = Schedule(**shared | {"freeze_norms": frozen, "seed": recipe.seed})
    kind = METHODS[recipe.method.name]
    assert issubclass(kind, TrainableSegmenter), "a recipe names a method that can be trained"
    aim = Aim(weight, train.hardest, recipe.seed, _small(recipe, dataset), train.steps)
    return kind.for_training(network, recipe.method, aim), batches, schedule, dataset


def save_run(
    recipe: Recipe,
    run: Path,
    method: TrainableSegmenter,
    dataset: Dataset,
    origin: Mapping[str, str] | None = None,
) -> Path:
    """Write what a run trained as `model.safetensors` with what is known about it, its parts in it.

    That is a card for an architecture for colour images, `config.json` for every other network.

    Args:
        recipe: What was asked for.
        run: Folder of the run.
        method: What was trained.
        dataset: What it was trained on.
        origin: Command, commit and machine for the card.
    """
    adapted = save_adapted(recipe, run, method, dataset)
    if adapted is not None:
        return adapted
    said = origin or {}
    card = Card(
        network=recipe.model.name,
        classes=dataset.classes,
        palette=dataset.palette,
        tile=recipe.method.tile,
        max_level=recipe.method.max_level,
        coarse_level=recipe.method.coarse_level,
        training={"recipe": recipe.as_dict()},
        command=said.get("command", ""),
        commit=said.get("commit", ""),
        machine=said.get("machine", ""),
    )
    network, path = cast(SegmentationNetwork, method.network), run / "model.safetensors"
    return save_model(network, card, path, half=True, parts=parts_of(method))


def _small(recipe: Recipe, dataset: Dataset) -> nn.Module | None:
    """Open the small network that the method of a recipe asks first; None if it names none.

    Raises:
        ValueError: There is none, or it has other classes than the data.
    """
    name = getattr(recipe.method, "small", "")
    if not name:
        return None
    found = open_model(name)
    if len(found.card.classes) != len(dataset.classes):
        raise ValueError(
            f"method.small {name} knows {len(found.card.classes)} classes and {dataset.name} has "
            f"{len(dataset.classes)}; give a model that was trained on these classes"
        )
    return found.network


def _network(recipe: Recipe, dataset: Dataset, batches: Batches, fresh: bool) -> nn.Module:
    """Make the network, with the weights that it starts from."""
    part = recipe.model
    if not is_plain(recipe, dataset):
        return create_adapted(recipe, dataset).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network = create_plain(recipe, len(dataset.classes))
    if part.start:
        return network
    if part.encoder_weights and fresh:
        load_encoder(network.encoder, part.encoder_weights, (network.mean, network.std))
        images = (batches[step][0] for step in range(CALIBRATION_BATCHES))
        calibrate_norms(network.encoder, ((image - network.mean) / network.std for image in images))
    return network.to(memory_format=torch.channels_last)
