"""What a process of its own runs, to see what memory a method takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from foveal.adaptive.opening import Reference, open_model
from foveal.calibration.configure import configure
from foveal.calibration.engine import find_engine


def runner(
    network: str, small: str, method: str, settings: Mapping[str, object], budget: float, image: Tensor
) -> Callable[[], Any]:
    """Return what segments one image [C, H, W] up to the labels."""
    model = open_model(Reference(network, trusted=True, small=small))
    engine = find_engine(model)
    made = engine.make(method, configure(model, method, budget, settings), model.resources)
    return lambda: made.labels(image[None])
