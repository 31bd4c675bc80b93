"""Cost of a method and of its dense network, measured in one process. Never one without the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from foveal.cost.macs import Macs, count_macs
from foveal.cost.timing import Timing, alternate


class Adaptive(Protocol):
    """What can be measured: a method, with the dense network that it approximates."""

    def __call__(self, image: Tensor) -> Any:
        """Segment images."""

    def dense(self) -> nn.Module:
        """Return the dense network."""
        ...


@dataclass(frozen=True)
class Cost:
    """Cost of one call.

    Attributes:
        macs: Multiply-accumulates of the method, its decision included [MAC].
        dense_macs: Those of the dense network [MAC].
        ms: Wall time of the method up to the labels [ms]; None if not timed.
        dense_ms: Wall time of the dense network up to the labels [ms].
    """

    macs: Macs
    dense_macs: Macs
    ms: Timing | None = None
    dense_ms: Timing | None = None


def measure(method: Adaptive, image: Tensor, labels: Callable[[Tensor], Tensor], repeat: int = 0) -> Cost:
    """Count, and time if asked to, a method and its dense network on the same images.

    Args:
        method: The adaptive method, in evaluation mode.
        image: [N, 3, H, W].
        labels: Turns the dense network's logits into labels at the image's size; the method does so itself.
        repeat: Timed rounds, dense and adaptive alternating; 0 counts only.
    """
    dense = method.dense()
    macs = count_macs(lambda: method(image).labels)
    dense_macs = count_macs(lambda: labels(dense(image)))
    if not repeat:
        return Cost(macs, dense_macs)
    with torch.inference_mode():
        times = alternate(
            {"dense": lambda: labels(dense(image)), "method": lambda: method(image).labels}, repeat
        )
    return Cost(macs, dense_macs, times["method"], times["dense"])
