"""Other packages, made to work beside the torch that is installed."""

from __future__ import annotations

import importlib
import sys
import warnings
from contextlib import suppress
from types import ModuleType

import torch


def torchvision() -> ModuleType:
    """Import torchvision, also where its compiled operators were built for another torch.

    The usual wheel beside a CPU build of torch fails to import because it registers shapes for operators
    that its library did not define. They are defined here without a body: networks and weights then work,
    `nms` does not. Nothing in foveal calls this; import torchvision or timm after it where they fail.

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
