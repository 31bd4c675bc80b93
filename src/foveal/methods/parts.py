"""What is trained beside a network and stored in its file: small modules of their own that a method asks.

Another kind is one line in `PARTS`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import torch
from pydantic import Field
from torch import nn

from foveal.decoders import Decoder, DecoderConfig
from foveal.exits import ExitConfig, Exits
from foveal.gates import Gates, GatesConfig
from foveal.policies import AnswerGate, PolicyNet
from foveal.routes import Router
from foveal.storage.reading import shorten
from foveal.storage.schema import read_as

M = TypeVar("M", bound=nn.Module)
ExitConfigs = Annotated[tuple[ExitConfig, ...], Field(min_length=1, max_length=64)]


@dataclass(frozen=True)
class PartKind:
    """A kind of module that may belong to a network.

    Attributes:
        kind: Its class.
        words: What it is, for messages.
        form: Type of its description, as pydantic knows it.
        make: Makes one from a description and a number of classes, with fresh weights.
        describe: Returns the description, of dicts, lists, strings and numbers or dataclasses of these.
    """

    kind: type[nn.Module]
    words: str
    form: Any
    make: Callable[[Any, int], nn.Module]
    describe: Callable[[Any], Any]


def _by_arguments(kind: type[nn.Module], words: str) -> PartKind:
    """Return a kind of module that whole numbers describe, the arguments of its class."""
    keys = list(inspect.signature(kind).parameters)

    def make(given: dict[str, int], _classes: int) -> nn.Module:
        if not given or not set(given) <= set(keys):
            said = f"{', '.join(keys[:-1])} and {keys[-1]}"
            raise ValueError(f"{words} is described by {shorten(given, 60)}; give some of the keys {said}")
        return kind(**given)

    return PartKind(kind, words, dict[str, int], make, lambda part: part.config)


PARTS = {
    "policy": _by_arguments(PolicyNet, "a policy network"),
    "gate": _by_arguments(AnswerGate, "a gate"),
    "exits": PartKind(Exits, "exits", ExitConfigs, Exits, lambda part: part.configs),
    "decoder": PartKind(Decoder, "a decoder", DecoderConfig, Decoder, lambda part: part.config),
    "router": _by_arguments(Router, "a router"),
    "gates": PartKind(Gates, "gates", GatesConfig, lambda given, _: Gates(given), lambda part: part.config),
}
"""Kinds by name: the names of their weights start with it and a dot."""


def make_parts(described: Mapping[str, Any], classes: int) -> dict[str, nn.Module]:
    """Make parts from their descriptions, with fresh weights, ready for inference.

    Args:
        described: Description by name of the kind.
        classes: Classes of the network.

    Raises:
        ValueError: A kind is unknown, or a description cannot be.
    """
    made = {}
    for name, given in described.items():
        if name not in PARTS:
            raise ValueError(f"part '{shorten(name, 60)}' is unknown; known: {', '.join(PARTS)}")
        kind = PARTS[name]
        read = read_as(kind.form, given, f"parts.{name}", f"description of {kind.words}")
        made[name] = kind.make(read, classes).eval()
    return made


def parts_problem(described: Mapping[str, Any], classes: int) -> str:
    """Say why parts cannot be made from their descriptions; nothing if they can. Allocates nothing."""
    try:
        with torch.device("meta"):
            make_parts(described, classes)
    except ValueError as error:
        return str(error)
    return ""


def first_of(kind: type[M], modules: Iterable[nn.Module]) -> M | None:
    """Return the first module of a kind; None if there is none."""
    return next((module for module in modules if isinstance(module, kind)), None)


def parts_of(module: nn.Module) -> dict[str, nn.Module]:
    """Find the parts that a method holds, by name."""
    return {
        name: part
        for name, kind in PARTS.items()
        if (part := first_of(kind.kind, module.modules())) is not None
    }


def words_of(kind: type[nn.Module]) -> str:
    """Return what a kind of part is, in words."""
    return next(entry.words for entry in PARTS.values() if entry.kind is kind)


def describe_parts(parts: Mapping[str, nn.Module]) -> dict[str, Any]:
    """Return what parts are made from, by name."""
    return {name: PARTS[name].describe(part) for name, part in parts.items()}
