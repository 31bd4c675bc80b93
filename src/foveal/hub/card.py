"""What must be known about trained weights, as JSON beside them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from foveal.models import MODELS
from foveal.policies import PolicyNet


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
        training: How it was trained and what it reached, in words and numbers.
        command: What trained it; empty if nobody said.
        commit: Of the checkout that trained it.
        machine: Where it was trained.
    """

    network: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    tile: int = 32
    max_level: int = 2
    coarse_level: int = 2
    policy: dict[str, int] = field(default_factory=dict)
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
        numbers = {
            "tile": (self.tile, 1),
            "max_level": (self.max_level, 0),
            "coarse_level": (self.coarse_level, 0),
        }
        colours = [c for c in self.palette if len(c) == 3 and all(v in range(256) for v in c)]
        if self.network not in MODELS:
            return f"network '{self.network}' is unknown; known: {', '.join(MODELS)}"
        if not self.classes or not all(isinstance(name, str) for name in self.classes):
            return "it names no classes"
        if not len(colours) == len(self.palette) == len(self.classes):
            return f"it needs a colour of three bytes for each of its {len(self.classes)} classes"
        for name, (value, least) in numbers.items():
            if not isinstance(value, int) or value < least:
                return f"{name} is {value!r}; it must be a whole number of at least {least}"
        return self._policy_problem()

    def _policy_problem(self) -> str:
        if self.policy == {}:
            return ""
        known = {"block", "width", "depth"}
        if not (isinstance(self.policy, dict) and set(self.policy) <= known):
            return f"policy is {self.policy!r}; it must have the keys block, width and depth, or none"
        if not all(type(value) is int for value in self.policy.values()):
            return f"policy is {self.policy!r}; it must hold whole numbers"
        try:
            with torch.device("meta"):
                PolicyNet(**self.policy)
        except ValueError as error:
            return str(error)
        return ""

    @classmethod
    def parse(cls, text: str | bytes, where: Path) -> Card:
        """Read a card from JSON.

        Raises:
            CheckpointError: It is no card, or of a network that this version lacks.
        """
        try:
            state = json.loads(text)
            state["network"] = str(state["network"])
            state["classes"] = tuple(state["classes"])
            state["palette"] = tuple(tuple(colour) for colour in state["palette"])
            card = cls(**state)
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{where}: no model card ({error})") from None
        problem = card.problem()
        if problem:
            raise CheckpointError(f"{where}: no model card ({problem})")
        return card
