"""The network that a recipe names: an architecture with any channels and classes, or somebody else's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from foveal.adaptive.adapt import adapt
from foveal.adaptive.files import WEIGHTS, save
from foveal.adaptive.opening import (
    Reference,
    call_function,
    describe,
    find_saved,
    is_function,
    load_weights,
    open_network,
)
from foveal.adaptive.prepared import PreparedNetwork
from foveal.adaptive.source import Source
from foveal.adaptive.spec import Specification, read_range
from foveal.data.dataset import Dataset
from foveal.data.raster import COLOUR, ImageFormat
from foveal.hub.checkpoint import load_model
from foveal.methods import METHODS, TrainableSegmenter
from foveal.methods.base import check_tile
from foveal.methods.padding import PaddedNetwork
from foveal.models import create_model
from foveal.storage.channels import channels_of
from foveal.training.config import Recipe

CREATE = "foveal:create_model"
"""Function that makes an architecture again."""


def recipe_format(recipe: Recipe) -> ImageFormat:
    """Return how image files become what the network of a recipe takes."""
    channels = recipe.model.channels
    if not channels and is_function(recipe.model.name):
        channels = channels_of(call_function(recipe.model.name))
    return ImageFormat(channels or COLOUR.channels, read_range(recipe.data.range or None))


def is_plain(recipe: Recipe, dataset: Dataset) -> bool:
    """Whether a card says everything: an architecture for colour images, with a logit for every class."""
    plain = not is_function(recipe.model.name) and dataset.reading == COLOUR
    return plain and recipe.model.classes in (0, len(dataset.classes))


def create_plain(recipe: Recipe, classes: int) -> Any:
    """Make an architecture, or load the trained model that the recipe starts from.

    Raises:
        ValueError: The model does not fit the recipe, or there is no architecture of that name.
    """
    part = recipe.model
    if not part.start:
        return create_model(part.name, classes)
    model = load_model(part.start)
    if (model.card.network, len(model.card.classes)) != (part.name, classes):
        raise ValueError(
            f"model.start is a {model.card.network} of {len(model.card.classes)} classes, the recipe "
            f"needs a {part.name} of {classes}"
        )
    return model.network


def create_adapted(recipe: Recipe, dataset: Dataset) -> nn.Module:
    """Make any other network, with its preprocessing, and try it on tiles.

    Raises:
        ValueError: It cannot be made, does not fit the data or what the recipe starts from, or cannot run on
            tiles.
    """
    part, count = recipe.model, len(dataset.classes)
    outputs = part.classes or count
    if outputs != count and (outputs, count) != (1, 2):
        raise ValueError(
            f"model.classes is {outputs} and {dataset.name} has {count} classes; give {count}"
            + (", or 1 for a sigmoid" if count == 2 else "")
        )
    if getattr(recipe.method, "policy", "") == "learned":
        raise ValueError(
            "a learned policy belongs to an architecture for colour images; give method.policy random"
        )
    if METHODS[recipe.method.name].needs is not None or getattr(recipe.method, "fusion", "") == "gated":
        raise ValueError(
            f"what {recipe.method.name} trains beside the network is stored with architectures for colour "
            "images; give one of them as model.name"
        )
    if part.encoder_weights:
        raise ValueError(
            "model.encoder_weights are for architectures with 3 channels and a logit per class; leave them "
            "out, or give model.start"
        )
    network: nn.Module = (
        call_function(part.name, recipe.seed)
        if is_function(part.name)
        else create_model(part.name, outputs, dataset.reading.channels)
    )
    if part.start:
        _start(network, part.start)
    source = _source(recipe, outputs, dataset.reading.channels)
    channels = dataset.reading.channels
    made = adapt(
        network,
        in_channels=channels,
        source=source.function,
        arguments=source.arguments,
        classes=dataset.classes,
        compile_now=False,
    )
    found = describe(made).network
    check_tile(found, recipe.method.tile)
    return found.requires_grad_(True)


def save_adapted(recipe: Recipe, run: Path, method: TrainableSegmenter, dataset: Dataset) -> Path | None:
    """Write what a run trained as `AdaptiveModel.save_pretrained` does; None for a plain architecture."""
    whole: Any = method.network
    prepared: Any = whole.prepared if isinstance(whole, PaddedNetwork) else whole
    if not isinstance(prepared, PreparedNetwork):
        return None
    spec = Specification(
        name=recipe.model.name.rpartition(":")[2],
        shape=prepared.shape,
        preprocess=prepared.preprocess,
        dense_modules=prepared.mixing,
        method="coarse_to_fine",
        tile=recipe.method.tile,
        coarse_level=recipe.method.coarse_level,
        precision="f32",
        classes=dataset.classes,
        palette=dataset.palette,
        source=_source(recipe, prepared.shape.outputs, prepared.shape.in_channels),
        value_range=dataset.reading.value_range,
    )
    save(run, prepared, spec, None)
    return run / WEIGHTS


def _source(recipe: Recipe, outputs: int, channels: int) -> Source:
    """Say how to make the network again."""
    if is_function(recipe.model.name):
        return Source(recipe.model.name)
    return Source(CREATE, {"name": recipe.model.name, "classes": outputs, "channels": channels})


def _start(network: nn.Module, start: str) -> None:
    """Give a network the weights of a saved folder or of a file.

    Raises:
        ValueError: There are none, or they are of another network.
    """
    if find_saved(start) is None:
        load_weights(network, Path(start))
        return
    state = open_network(Reference(start, trusted=True)).state_dict()
    try:
        with torch.no_grad():
            network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"model.start is {start}, of another network than {type(network).__name__} "
            f"({' '.join(str(error).split())[:200]})"
        ) from None
