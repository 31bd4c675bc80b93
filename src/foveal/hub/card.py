"""What must be known about trained weights, as JSON beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import ConfigDict, Field

from foveal.decoders import DecoderConfig
from foveal.exits import ExitConfig
from foveal.models import MODELS
from foveal.policies import AnswerGate, PolicyNet
from foveal.storage.reading import read_json, refusal, shorten
from foveal.storage.schema import MOST_CLASSES, Colour, Level, Name, Tile, read_as


class CheckpointError(ValueError):
    """A model that does not exist, is damaged, or does not fit its network."""


@dataclass(frozen=True)
class Card:
    """What must be known about trained weights.

    Attributes:
        network: Name in `foveal.models.MODELS`.
        classes: Names of the classes, by id.
        palette: Colour of every class, 0..255.
        tile: Side of a tile that suits the images it was trained on [px].
        max_level: Coarsest level that it was trained for.
        coarse_level: Level of the coarse pass, for methods that begin with one.
        policy: Arguments of the policy network that was trained with it; empty if there is none.
        exits: Where it may be left, and the heads there that were trained with it, first to last.
        gate: Arguments of the gate between its answer and a small network's; empty if there is none.
        decoder: Shape of what may answer in the place of its own decoder.
        training: How it was trained and what it reached, in words and numbers.
        command: What trained it; empty if nobody said.
        commit: Of the checkout that trained it.
        machine: Where it was trained.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    network: str
    classes: Annotated[tuple[Name, ...], Field(max_length=MOST_CLASSES)]
    palette: tuple[Colour, ...]
    tile: Tile = 32
    max_level: Level = 2
    coarse_level: Level = 2
    policy: dict[str, int] = field(default_factory=dict)
    exits: Annotated[tuple[ExitConfig, ...], Field(max_length=64)] = ()
    gate: dict[str, int] = field(default_factory=dict)
    decoder: DecoderConfig | None = None
    training: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    commit: str = ""
    machine: str = ""

    @property
    def recommended(self) -> dict[str, int]:
        """Settings that it recommends for any method that has them."""
        return {"tile": self.tile, "max_level": self.max_level, "coarse_level": self.coarse_level}

    def problem(self) -> str:
        """Say what is wrong with the values; nothing if they can be used."""
        if self.network not in MODELS:
            return f"network '{shorten(self.network, 60)}' is unknown; known: {', '.join(MODELS)}"
        if not self.classes:
            return "it names no classes"
        if len(self.palette) != len(self.classes):
            return f"it needs a colour of three bytes for each of its {len(self.classes)} classes"
        found = _part_problem("policy", self.policy, PolicyNet, ("block", "width", "depth"))
        return found or _part_problem("gate", self.gate, AnswerGate, ("classes", "width"))

    @classmethod
    def read(cls, path: Path) -> Card:
        """Read a card from a JSON file.

        Raises:
            CheckpointError: It is no card, or of a network that this version lacks.
        """
        what = "model card"
        card = read_as(cls, read_json(path, what, CheckpointError), path, what, CheckpointError)
        problem = card.problem()
        if problem:
            raise CheckpointError(refusal(path, what, problem))
        return card


def _part_problem(name: str, given: dict[str, int], kind: Callable[..., object], keys: Sequence[str]) -> str:
    """Say why a part that belongs to the network cannot be made of its arguments; nothing if it can."""
    if given == {}:
        return ""
    if not set(given) <= set(keys):
        said = f"{', '.join(keys[:-1])} and {keys[-1]}"
        return f"{name} is {shorten(given, 60)}; it must have the keys {said}, or none"
    try:
        with torch.device("meta"):
            kind(**given)
    except (ValueError, TypeError) as error:
        return str(error)
    return ""
