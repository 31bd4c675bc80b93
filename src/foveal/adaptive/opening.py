"""Networks by name, for the command line: bundled, a file, a run, a saved folder, or `module:function`."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from foveal.adaptive.adapt import adapt
from foveal.adaptive.engine import describe_model
from foveal.adaptive.files import CONFIG, WEIGHTS, save, write_page
from foveal.adaptive.model import AdaptiveModel
from foveal.adaptive.pairs import with_small
from foveal.adaptive.source import imported, is_function_name
from foveal.adaptive.spec import Specification
from foveal.calibration.profile import CalibrationProfile
from foveal.data.raster import COLOUR, ImageFormat
from foveal.hub.card import CheckpointError
from foveal.hub.checkpoint import Model, load_model, save_model
from foveal.hub.untrained import random_model
from foveal.methods.padding import PaddedNetwork
from foveal.models import MODELS
from foveal.models.adapters import remedy
from foveal.storage.finite import check_finite, mask_buffers
from foveal.storage.reading import read_json
from foveal.storage.tensors import read_pickled, read_tensors


@dataclass(frozen=True)
class AdaptedModel(Model):
    """A network of somebody else, as commands know trained networks.

    Attributes:
        spec: What is known about it.
    """

    spec: Specification | None = None


@dataclass(frozen=True)
class Reference:
    """How a user names a network.

    Attributes:
        name: Bundled model, architecture, file, folder, or "module:function", which is called without
            arguments.
        weights: File of weights for what the function makes: safetensors, or a state dict of torch.
        trusted: Whether a function that a saved folder names may be called.
        classes: Names of the classes of what the function makes.
        value_range: Values that are 0 and 1 in its images; those of the kind of file if None.
        device: Where it runs.
        small: Name of a small network for the same classes, for a method that asks it first.
    """

    name: str
    weights: Path | None = None
    trusted: bool = False
    classes: tuple[str, ...] = ()
    value_range: tuple[float, float] | None = None
    device: str = "cpu"
    small: str = ""


def open_model(reference: Reference | str, untrained: bool = False) -> Model:
    """Find a network and what is known about it; one that is not ours is tried on tiles.

    Args:
        reference: How the user names it.
        untrained: Whether an architecture may be named, which gets random weights.

    Raises:
        ValueError: There is none, it is damaged, does not fit its weights or cannot run on tiles, or the
            device is not there.
    """
    given = Reference(reference) if isinstance(reference, str) else reference
    device = find_device(given.device)
    folder = find_saved(given.name)
    if is_function(given.name):
        found: Model = _made_by_function(given)
    elif given.weights is not None:
        raise ValueError(
            f"--weights {given.weights} is for module:function; {given.name} has its own weights"
        )
    elif folder is not None:
        found = describe(AdaptiveModel.from_pretrained(folder, trust_source=given.trusted), folder / WEIGHTS)
    elif untrained and given.name in MODELS:
        found = random_model(given.name)
    else:
        found = _bundled(given.name, untrained)
    found.network.to(device)
    kept = found.compiled if device.type == "cpu" else None  # programs run on the CPU
    found = _with_wishes(replace(found, compiled=kept), given)
    if not given.small:
        return found
    return with_small(found, open_model(Reference(given.small, trusted=given.trusted, device=given.device)))


def open_network(reference: Reference | str) -> nn.Module:
    """Find a network as it is, without trying it on tiles; an architecture may be named.

    Raises:
        ValueError: There is none of that name, or the function returns no module.
    """
    given = Reference(reference) if isinstance(reference, str) else reference
    device = find_device(given.device)
    if is_function(given.name):
        made = call_function(given.name)
        network = made.network if isinstance(made, AdaptiveModel) else made
        if given.weights is not None:
            load_weights(network, given.weights)
        return network.to(device)
    found: Any = open_model(given, untrained=True).network
    inner = found.prepared if isinstance(found, PaddedNetwork) else found
    return inner.network if find_saved(given.name) is not None else inner


def describe(model: AdaptiveModel, file: Path | None = None) -> AdaptedModel:
    """Describe an adaptive model as commands know trained networks."""
    found = describe_model(model.prepared, model.spec, file)
    small = None if model.small is None else describe(model.small)
    return AdaptedModel(
        found.name,
        found.network,
        found.card,
        found.file,
        model.compiled,
        spec=model.spec,
        small=small,
    )


def image_format(model: Model) -> ImageFormat:
    """Return how image files become what a model takes."""
    spec = model.spec if isinstance(model, AdaptedModel) else None
    channels = getattr(model.network, "in_channels", COLOUR.channels)
    return ImageFormat(channels, None if spec is None else spec.value_range)


def scale_of(model: Model) -> float:
    """Return the share of its sides that an image is shrunk to before a model sees it."""
    spec = model.spec if isinstance(model, AdaptedModel) else None
    return 1.0 if spec is None else spec.scale


def renew_page(model: Model, profile: CalibrationProfile) -> None:
    """Write the page of a saved model again after calibration; one that people changed stays."""
    if not isinstance(model, AdaptedModel) or model.spec is None or model.file is None:
        return
    if (folder := find_saved(str(model.file.parent))) is not None:
        write_page(folder, model.spec, profile)


def save_copy(model: Model, folder: Path) -> Model:
    """Write a model into a folder, in the format that it came in; return what the folder holds.

    Its card says tile and levels, also where they were changed after it was opened.
    """
    if not isinstance(model, AdaptedModel):
        path = save_model(model.network, model.card, folder / WEIGHTS, parts=model.parts)
        return load_model(path)
    assert model.spec is not None, "is set where one is made"
    spec = replace(model.spec, tile=model.card.tile, coarse_level=model.card.coarse_level)
    inner: Any = model.network
    save(folder, inner.prepared if isinstance(inner, PaddedNetwork) else inner, spec, None)
    return replace(model, spec=spec, file=folder / WEIGHTS)


def find_device(name: str, setting: str = "--device") -> torch.device:
    """Return a device that is there.

    Args:
        name: Name, such as cuda:1.
        setting: Option or key of a recipe that says it, for the message.

    Raises:
        ValueError: It is not, or there is none of that name.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0].split(". ")[0]
        raise ValueError(
            f"{setting} {name} cannot be used ({reason}); give cpu, or one that is here"
        ) from None
    return device


def find_saved(name: str) -> Path | None:
    """Return the folder of an adaptive model, given by itself or by its weights; None if it is none."""
    path = Path(name)
    folder = path.parent if path.name == WEIGHTS else path
    config = folder / CONFIG
    if not config.is_file() or not (folder / WEIGHTS).is_file():
        return None
    try:
        return folder if "format" in read_json(config, "adaptive model") else None
    except (ValueError, TypeError):
        return None


def is_function(name: str) -> bool:
    """Whether a name is that of a function, "module:function", and of nothing that lies on the disk."""
    return ":" in name and is_function_name(name) and not Path(name).exists()


def call_function(name: str, seed: int = 0) -> nn.Module:
    """Import from the current folder, and call without arguments; random weights follow from the seed.

    Raises:
        ValueError: It cannot be imported or called, or returns no module.
    """
    module, _, function = name.partition(":")
    try:
        with torch.random.fork_rng(devices=[]):
            made = imported(lambda: _called(module, function, seed))
    except Exception as error:  # somebody else's code
        known = remedy(error)
        more = f"; {known}" if known else ""
        raise ValueError(f"{name} gives no network ({type(error).__name__}: {_line(error)}){more}") from None
    if not isinstance(made, nn.Module):
        raise ValueError(f"{name} returns {made!r:.40}; give a function that returns a torch module")
    return made


def _called(module: str, function: str, seed: int) -> Any:
    torch.manual_seed(seed)
    return getattr(importlib.import_module(module), function)()


def load_weights(network: nn.Module, path: Path) -> None:
    """Load safetensors, or a state dict of torch, into a network; nothing is unpickled but tensors.

    Raises:
        ValueError: The file cannot be read, or is of another network.
    """
    try:
        masks = mask_buffers(network)
        safe = path.suffix == ".safetensors"
        state = read_tensors(path, "weights", masks=masks)[0] if safe else read_pickled(path)
        consume_prefix_in_state_dict_if_present(state, "module.")
        network.load_state_dict(state)
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: no weights of {type(network).__name__} ({_line(error)}); give safetensors, or a state "
            "dict that torch.save wrote"
        ) from None
    except Exception as error:  # of the unpickler, which refuses all but tensors
        raise ValueError(
            f"{path}: cannot be read as a state dict ({type(error).__name__}: {_line(error)}); save it with "
            "torch.save(network.state_dict(), FILE) or as safetensors"
        ) from None
    check_finite(state, path, masks=masks)


def _made_by_function(given: Reference) -> AdaptedModel:
    """Make the model of a function; one that returns an adaptive model says everything itself."""
    made = call_function(given.name)
    if given.weights is not None:
        load_weights(made.network if isinstance(made, AdaptiveModel) else made, given.weights)
    if not isinstance(made, AdaptiveModel):
        made = adapt(made, classes=given.classes, source=given.name, compile_now=False)
    return describe(made, given.weights)


def _bundled(name: str, untrained: bool) -> Model:
    """Load a trained network of ours; say what else may be named if there is none."""
    try:
        return load_model(name)
    except CheckpointError as error:
        if Path(name).exists():
            raise
        more = f", or an architecture: {', '.join(MODELS)}" if untrained else ""
        raise ValueError(f"{error}{more}") from None


def _with_wishes(found: Model, given: Reference) -> Model:
    """Take over names of classes and the range of values that a user gives.

    Raises:
        ValueError: There are as many names as the network has no classes, or our own network has a range.
    """
    card = found.card
    if given.classes:
        if len(given.classes) != len(card.classes):
            raise ValueError(
                f"--classes has {len(given.classes)} names and {found.name} {len(card.classes)} classes; "
                f"give {len(card.classes)}"
            )
        card = replace(card, classes=given.classes)
    found = replace(found, card=card)
    if not isinstance(found, AdaptedModel):
        if given.value_range is not None:
            raise ValueError(
                f"--range is for networks of your own; {found.name} takes images as files have them"
            )
        return found
    assert found.spec is not None, "is set where one is made"
    kept = found.spec.value_range if given.value_range is None else given.value_range
    return replace(found, spec=replace(found.spec, classes=card.classes, value_range=kept))


def _line(error: Exception) -> str:
    """Return what an error says, in one line."""
    return " ".join(str(error).split())[:300]
