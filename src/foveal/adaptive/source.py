"""How to make a network again: by whose function, and with which arguments."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module, invalidate_caches
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict
from torch import nn

SMP, TRANSFORMERS, TIMM = "segmentation_models_pytorch", "transformers", "timm"
KNOWN = {"foveal:create_model", f"{TIMM}:create_model"}
"""Functions that are called without asking; classes of networks of the libraries above are, too."""


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
            json.dumps(self.arguments)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"arguments of {self.function} cannot be written as JSON ({error}); give numbers, strings, "
                "lists and dicts, or leave source out and load with from_pretrained(folder, network=net)"
            ) from None

    @property
    def is_known(self) -> bool:
        """Whether it is of a library that is called without asking."""
        return self.function in KNOWN or self.function.split(".")[0].split(":")[0] in (SMP, TRANSFORMERS)

    def make(self, trusted: bool = False) -> nn.Module:
        """Make the network, with random weights.

        Args:
            trusted: Whether any function may be called; else only classes of networks of known libraries.

        Raises:
            ValueError: The function is not known and not trusted, cannot be imported, or makes no module.
        """
        module, name = self.function.split(":")
        library = module.split(".")[0]
        if not (trusted or self.is_known):
            raise ValueError(
                f"the network is made by {self.function}, which runs code that is not part of the file; give "
                "trust_source=True (--trust-source) if you trust it, or network=net with the network itself"
            )
        try:
            with importable():
                maker = getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"the network is made by {self.function}, which cannot be imported ({error}); install it, or "
                "give network=net with the network itself"
            ) from None
        is_network = isinstance(maker, type) and issubclass(maker, nn.Module)
        if not (trusted or self.function in KNOWN or is_network):
            raise ValueError(
                f"{self.function} is no class of networks; give trust_source=True if you trust it, or "
                "network=net"
            )
        if library == TRANSFORMERS and is_network:
            return maker(maker.config_class.from_dict(self.arguments))
        made = maker(**self.arguments)
        if not isinstance(made, nn.Module):
            raise ValueError(f"{self.function} makes a {type(made).__name__}; give one that makes a module")
        return made


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
    """Find how to make a network again in the config that it carries; None if it carries none."""
    kind = type(network)
    library = kind.__module__.split(".")[0]
    config = getattr(network, "_hub_mixin_config", None)
    own: Any = getattr(network, "config", None)
    card = getattr(network, "pretrained_cfg", None)
    try:
        if library == SMP and isinstance(config, Mapping):
            return Source(f"{SMP}:{kind.__name__}", {**config, "encoder_weights": None})
        if library == TRANSFORMERS and own is not None:
            return Source(f"{TRANSFORMERS}:{kind.__name__}", own.to_dict())
        if library == TIMM and isinstance(card, Mapping):
            return Source(f"{TIMM}:create_model", {"model_name": card["architecture"]})
    except (ValueError, KeyError):  # it holds what cannot be written down
        return None
    return None
