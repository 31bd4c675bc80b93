"""torchvision: its networks carry nothing; which builder made one is found by the shapes of its weights."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from types import ModuleType
from typing import Any

import torch
from torch import nn

from foveal.models.adapters.base import Adapter, Images, Maker, Recognised, is_of

PLACE = "torchvision.models.segmentation"


class TorchvisionAdapter(Adapter):
    """Networks of `torchvision.models.segmentation`."""

    library = "torchvision"
    preprocessing = "weights of torchvision"

    def recognise(self, network: nn.Module) -> Recognised | None:
        """Find the builder; how images were prepared is said by the weights alone."""
        if not is_of(network, self.library):
            return None
        return Recognised(maker=self._maker(network))

    def read(self, given: Any) -> Images | None:
        """Read an entry of the weights, or its transforms."""
        if callable(getattr(given, "transforms", None)):
            given = given.transforms()
        mean, std = getattr(given, "mean", None), getattr(given, "std", None)
        return None if mean is None or std is None else Images(tuple(mean), tuple(std))

    def may_call(self, function: str, maker: Any) -> bool:
        """Whether it is a builder of the library."""
        module, _, name = function.partition(":")
        return (
            module == PLACE and callable(maker) and not name.startswith("_") and not isinstance(maker, type)
        )

    def remedy(self, error: BaseException) -> str:
        """Say what helps where the library was built for another torch."""
        if f"{self.library}::" not in str(error):
            return ""
        return (
            f"install the {self.library} that was built for torch {torch.__version__}, or call "
            "foveal.import_library('torchvision') before"
        )

    def mend(self, error: BaseException) -> bool:
        """Import the library where it was built for another torch."""
        if f"{self.library}::" not in str(error):
            return False
        with suppress(ImportError, RuntimeError):
            import_torchvision()
            return True
        return False

    def _maker(self, network: nn.Module) -> Maker | None:
        """Find the builder whose network has weights of the same names and shapes; None if none has."""
        shapes = {name: value.shape for name, value in network.state_dict().items()}
        place = importlib.import_module(PLACE)
        for arguments in _arguments(network):
            for name, builder in vars(place).items():
                if not hasattr(builder, "__wrapped__") or name.startswith("_"):
                    continue
                with torch.device("meta"), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    made = builder(**arguments)
                if {key: value.shape for key, value in made.state_dict().items()} == shapes:
                    return Maker(f"{PLACE}:{name}", arguments)
        return None


def _arguments(network: nn.Module) -> Iterator[dict[str, Any]]:
    """Guess arguments of a builder: the classes are those of the last convolution of the classifier."""
    layers = [m for m in getattr(network, "classifier", network).modules() if isinstance(m, nn.Conv2d)]
    if layers:
        plain = {"weights": None, "weights_backbone": None, "num_classes": layers[-1].out_channels}
        aux = getattr(network, "aux_classifier", None)
        yield {**plain, "aux_loss": True} if aux is not None else plain


def import_torchvision() -> ModuleType:
    """Import torchvision, also where its compiled operators were built for another torch.

    The usual wheel beside a CPU build of torch fails to import because it registers shapes for operators
    that its library did not define. They are defined here without a body: networks and weights then work,
    `nms` does not. Import torchvision or timm after it where they fail; `foveal.import_library` calls it, and
    so do files and commands that name a network which cannot be imported otherwise.

    Raises:
        ImportError: torchvision is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module("torchvision")
        except RuntimeError as error:
            if "torchvision::" not in str(error):
                raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        for operator in ("nms", "qnms"):
            with suppress(RuntimeError):  # it is defined
                signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                torch.library.define(f"torchvision::{operator}", signature)
        return importlib.import_module("torchvision")
