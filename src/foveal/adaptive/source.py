"""How to make a network again: by whose function, and with which arguments."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module, invalidate_caches
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict
from torch import nn

from foveal.models.adapters import ADAPTERS, mended, recognise, remedy
from foveal.storage.reading import shorten

KNOWN = {"foveal:create_model"}
"""Functions that are called without asking; those of libraries that adapters know are, too."""


@dataclass(frozen=True)
class Source:
    """How to make a network again.

    Attributes:
        function: "module:function", or a class.
        arguments: Keyword arguments, as JSON has them; for a class of transformers its config.

    Raises:
        ValueError: The name is none, or an argument cannot be written as JSON.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    function: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not is_function_name(self.function):
            raise ValueError(
                f'source is "{self.function}"; give "module:function", a function that makes the network'
            )
        try:
            object.__setattr__(self, "arguments", json.loads(json.dumps(self.arguments)))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"arguments of {self.function} cannot be written as JSON ({error}); give numbers, strings, "
                "lists and dicts, or leave source out and load with from_pretrained(folder, network=net)"
            ) from None

    @property
    def is_known(self) -> bool:
        """Whether it is of a library whose networks are made without asking."""
        library = self.function.partition(":")[0].split(".")[0]
        return self.function in KNOWN or library == "foveal" or any(a.library == library for a in ADAPTERS)

    def make(self, trusted: bool = False) -> nn.Module:
        """Make the network, with random weights.

        Args:
            trusted: Whether any function may be called; else only those of networks of known libraries.

        Raises:
            ValueError: The function is not known and not trusted, cannot be imported, or makes no module.
        """
        if not (trusted or self.is_known):
            raise ValueError(
                f"the network is made by {self.function}, which runs code that is not part of the file; give "
                "trust_source=True (--trust-source) if you trust it, or network=net with the network itself"
            )
        module, name = self.function.split(":")
        try:
            maker = imported(lambda: getattr(import_module(module), name))
        except Exception as error:  # somebody else's code
            raise ValueError(
                f"the network is made by {self.function}, which cannot be imported ({shorten(error, 200)}); "
                f"{remedy(error) or 'install it'}, or give network=net with the network itself"
            ) from None
        adapter = next((each for each in ADAPTERS if each.may_call(self.function, maker)), None)
        if not (trusted or self.function in KNOWN or adapter):
            raise ValueError(
                f"{self.function} is no class of networks; give trust_source=True if you trust it, or "
                "network=net"
            )
        made = adapter.make(maker, self.arguments) if adapter else maker(**self.arguments)
        if not isinstance(made, nn.Module):
            raise ValueError(f"{self.function} makes a {type(made).__name__}; give one that makes a module")
        return made


def imported(make: Callable[[], Any]) -> Any:
    """Import by a function, from the current folder too, and as `foveal.import_library` does."""
    with importable():
        return mended(make)


@contextmanager
def importable() -> Iterator[None]:
    """Let modules of the current folder be imported, as the user who names one means."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        invalidate_caches()
        yield
    finally:
        sys.path.remove(here)


def is_function_name(text: str) -> bool:
    """Whether a text has the form "module:function", or that of a class."""
    module, _, name = text.partition(":")
    return name.isidentifier() and all(part.isidentifier() for part in module.split("."))


def find_source(network: nn.Module) -> Source | None:
    """Find how to make a network again, by the library that it is of; None if it does not say."""
    maker = recognise(network).maker
    try:
        return None if maker is None else Source(maker.function, dict(maker.arguments))
    except ValueError:  # it holds what cannot be written down
        return None
