"""Listings of methods, policies, trained models and architectures."""

from __future__ import annotations

import inspect
from functools import partial

import torch
from torch import nn

from foveal.cost import count_macs
from foveal.hub.checkpoint import Model, bundled, load_model
from foveal.hub.rows import ArchitectureRow, MethodRow, ModelRow, PolicyRow
from foveal.methods import METHODS
from foveal.models import MODELS, create_model
from foveal.policies import POLICIES

SIZE = (1024, 2048)
"""Height and width at which architectures are compared [px]."""


def list_methods() -> list[MethodRow]:
    """Describe every method by the docstring of its file: its first line, and the entries after it."""
    rows = []
    for name, kind in METHODS.items():
        text = inspect.getdoc(inspect.getmodule(kind)) or ""
        first = text.partition("\n")[0]
        entries = [_field(text, key) for key in ("Adapts", "Decides", "Knob", "Source")]
        rows.append(MethodRow(name, first.partition(": ")[2] or first, *entries))
    return rows


def list_policies() -> list[PolicyRow]:
    """Describe every policy: what it goes by, and whether it takes a coarse pass first."""
    return [PolicyRow(name, entry.description, entry.needs_pass) for name, entry in POLICIES.items()]


def list_models() -> list[ModelRow]:
    """Describe the models that come with the package."""
    return [describe_model(load_model(name)) for name in bundled()]


def describe_model(model: Model) -> ModelRow:
    """Describe a model: its card, how large it is, and what it costs; its network is moved to no device."""
    card = model.card
    return ModelRow(
        name=model.name,
        network=card.network,
        parameters=count_parameters(model.network),
        bytes=0 if model.file is None else model.file.stat().st_size,
        channels=getattr(model.network, "in_channels", 3),
        classes=card.classes,
        palette=card.palette,
        tile=card.tile,
        max_level=card.max_level,
        coarse_level=card.coarse_level,
        parts=card.parts,
        training=card.training,
        macs=dense_macs(model.network),
    )


def list_architectures(size: tuple[int, int] = SIZE) -> list[ArchitectureRow]:
    """Describe every architecture, its MACs counted at a size [px] without running it."""
    rows = []
    for name, builder in MODELS.items():
        with torch.device("meta"):
            network = create_model(name)
        says = (inspect.getdoc(builder) or "").partition("\n")[0].rstrip(".")
        rows.append(ArchitectureRow(name, says, count_parameters(network), dense_macs(network, size), size))
    return rows


def count_parameters(network: nn.Module) -> int:
    """Count the trained numbers of a network."""
    return sum(parameter.numel() for parameter in network.parameters())


def dense_macs(network: nn.Module, size: tuple[int, int] = SIZE) -> int:
    """Count the MACs of a network up to its logits, on no device at all; it is moved there."""
    network = network.eval().to("meta")
    channels = getattr(network, "in_channels", 3)
    return count_macs(partial(network, torch.empty(1, channels, *size, device="meta"))).total


def _field(text: str, key: str) -> str:
    """Read an entry like `Adapts   space, ...` with its indented continuation."""
    lines = text.splitlines()
    start = next((k for k, line in enumerate(lines) if line.startswith(f"{key} ")), None)
    if start is None:
        return ""
    found = [lines[start].removeprefix(key).strip()]
    for line in lines[start + 1 :]:
        if not line.startswith(" "):
            break
        found.append(line.strip())
    return " ".join(found)
