"""Rows of methods, policies, models and architectures; their fields in order are the JSON keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class MethodRow:
    """An adaptive method, in the words of its file.

    Attributes:
        name: Name in `foveal.methods.METHODS`.
        says: What it does, in a sentence.
        adapts: What it adapts.
        decides: What decides, and when.
        knob: What the user sets.
        source: Where it comes from.
    """

    name: str
    says: str
    adapts: str
    decides: str
    knob: str
    source: str


@dataclass(frozen=True)
class PolicyRow:
    """A policy.

    Attributes:
        name: Name in `foveal.policies.POLICIES`.
        says: What it goes by, in a sentence.
        looks: Whether it needs the network's answer on a coarse pass.
    """

    name: str
    says: str
    looks: bool


@dataclass(frozen=True)
class ModelRow:
    """A trained model: its card, its size, its cost.

    Attributes:
        name: Name of the file, without its suffix.
        network: Name of the architecture.
        parameters: Number of parameters.
        bytes: Size of the weights file [B]; 0 if there is none.
        channels: Channels of its images.
        classes: Names of the classes, by id.
        palette: Colour of every class, 0..255.
        tile: Side of a tile that suits it [px].
        max_level: Coarsest level that it was trained for.
        coarse_level: Level of the coarse pass, for methods that begin with one.
        parts: What was trained and is stored with it: by name of a kind, what such a part is made from.
        training: How it was trained and what it reached, as its card says.
        macs: Multiply-accumulates at 1024x2048 px, up to the logits [MAC].
    """

    name: str
    network: str
    parameters: int
    bytes: int
    channels: int
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    tile: int
    max_level: int
    coarse_level: int
    parts: Mapping[str, Any]
    training: Mapping[str, Any]
    macs: int


@dataclass(frozen=True)
class ArchitectureRow:
    """An architecture.

    Attributes:
        name: Name in `foveal.models.MODELS`.
        says: What it is, in a sentence.
        parameters: Number of parameters.
        macs: Multiply-accumulates, up to the logits [MAC].
        size: Height and width that they are counted at [px].
    """

    name: str
    says: str
    parameters: int
    macs: int
    size: tuple[int, int]
