"""What must be known about trained weights, as JSON beside them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from foveal.methods.parts import parts_problem
from foveal.models import MODELS
from foveal.storage.reading import read_json, refusal, shorten
from foveal.storage.schema import MOST_CLASSES, Colour, Level, Name, Tile, read_as

ALONE = ("policy", "gate", "exits")
"""Parts that older cards have as keys of their own."""


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
        parts: What was trained with it and is stored in its file: by name of a kind (`methods/parts.py`) what
            such a part is made from.
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
    parts: dict[Name, Any] = field(default_factory=dict)
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
        return parts_problem(self.parts, len(self.classes))

    @classmethod
    def read(cls, path: Path) -> Card:
        """Read a card from a JSON file.

        Raises:
            CheckpointError: It is no card, or of a network that this version lacks.
        """
        what = "model card"
        found = _gathered(read_json(path, what, CheckpointError))
        card = read_as(cls, found, path, what, CheckpointError)
        problem = card.problem()
        if problem:
            raise CheckpointError(refusal(path, what, problem))
        return card


def _gathered(state: Any) -> Any:
    """Put what cards said of parts one by one, before they had `parts`, there."""
    if not isinstance(state, dict) or "parts" in state:
        return state
    alone = {name: state[name] for name in ALONE if name in state}
    left = {name: value for name, value in state.items() if name not in ALONE}
    return left | {"parts": {name: given for name, given in alone.items() if given not in ({}, [])}}
