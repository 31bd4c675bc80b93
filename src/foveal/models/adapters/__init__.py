"""Libraries of networks: what their networks expect, and how to make them again. One file a library."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

from torch import nn

from foveal.models.adapters.base import Adapter, Images, Maker, Pretrained, Recognised
from foveal.models.adapters.smp import SmpAdapter
from foveal.models.adapters.timm import TimmAdapter, timm_segmenter
from foveal.models.adapters.torchvision import TorchvisionAdapter
from foveal.models.adapters.transformers import TransformersAdapter
from foveal.storage.given import need

__all__ = [
    "ADAPTERS",
    "Adapter",
    "Images",
    "Maker",
    "Pretrained",
    "Recognised",
    "import_library",
    "mended",
    "pretrained",
    "read_images",
    "recognise",
    "remedy",
    "settle",
    "timm_segmenter",
    "unsaid_images",
]

Made = TypeVar("Made")
ADAPTERS: tuple[Adapter, ...] = (SmpAdapter(), TransformersAdapter(), TorchvisionAdapter(), TimmAdapter())
"""The first that recognises a network says what it expects."""


def recognise(network: nn.Module) -> Recognised:
    """Say what a network expects, by the library that it is of; nothing if it is of none."""
    found = (adapter.recognise(network) for adapter in ADAPTERS)
    return next((each for each in found if each is not None), Recognised())


def unsaid_images(network: nn.Module) -> str:
    """Say that a network of a library does not tell which images it expects; empty if it does."""
    known = ((adapter.library, adapter.recognise(network)) for adapter in ADAPTERS)
    library, found = next(((name, each) for name, each in known if each is not None), ("", None))
    if found is None or found.find_images is not None:
        return ""
    return (
        f"{type(network).__name__} of {library} does not say how its images were prepared, so it is given "
        "images in 0..1 as they are; if its weights expect others, give foveal.adapt(network, preprocess=...)"
    )


def settle(network: nn.Module) -> None:
    """Set what lets a network run on tiles, in place."""
    for name, value in recognise(network).settings.items():
        vars(network)[name] = value


def read_images(given: Any) -> Images | None:
    """Read how images were prepared from what a library has for it; None if it is nothing of theirs."""
    found = (adapter.read(given) for adapter in ADAPTERS)
    return next((each for each in found if each is not None), None)


def remedy(error: BaseException) -> str:
    """Say what to do about an error while networks are imported, as their library knows; empty if not."""
    return next(filter(None, (adapter.remedy(error) for adapter in ADAPTERS)), "")


def mended(make: Callable[[], Made]) -> Made:
    """Import or make something by a function, once more where a library knows what mends its error."""
    try:
        return make()
    except Exception as error:  # somebody else's code
        if not any(adapter.mend(error) for adapter in ADAPTERS):
            raise
        return make()


def import_library(name: str) -> ModuleType:
    """Import a library of networks, also where its compiled operators were built for another torch.

    Networks and weights then work; operators that are missing, such as `nms`, raise an error when called.

    Args:
        name: As in an import statement.

    Raises:
        ImportError: It is not installed.
    """
    need(name, str, "name", "the name of a library, as in an import statement")
    return mended(lambda: import_module(name))


def pretrained(source: str) -> Pretrained | None:
    """Make the pretrained encoder that a name such as timm:resnet18 means; None if it means none.

    Raises:
        ValueError: There is no such encoder, or its library is not there.
    """
    for adapter in ADAPTERS:
        if adapter.prefix and source.startswith(adapter.prefix):
            return adapter.pretrained(source.removeprefix(adapter.prefix))
    return None
