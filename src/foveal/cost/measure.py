"""Cost of a method and of its dense network, measured in one process. Never one without the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from foveal.cost.macs import Macs, count_macs
from foveal.cost.timing import Timing, alternate
from foveal.storage.given import need
from foveal.storage.pictures import sentence


class Adaptive(Protocol):
    """What can be measured: a method, with the dense network that it approximates."""

    def __call__(self, image: Tensor) -> Any:
        """Segment images."""

    def dense_labels(self, image: Tensor) -> Tensor:
        """Return what the dense network says."""
        ...


@dataclass(frozen=True)
class Cost:
    """Cost of one call, up to the labels at the image's size.

    Attributes:
        macs: Multiply-accumulates of the method, its decision included [MAC].
        dense_macs: Those of the dense network [MAC].
        ms: Wall time of the method [ms]; None if not timed.
        dense_ms: Wall time of the dense network [ms].
    """

    macs: Macs
    dense_macs: Macs
    ms: Timing | None = None
    dense_ms: Timing | None = None

    def __str__(self) -> str:
        """Say in a sentence what was spent, beside the dense network."""
        share = self.macs.total / max(self.dense_macs.total, 1)
        counted = f"{self.macs.total / 1e9:.2f} GMAC, {share:.1%} of the dense network's"
        if self.ms is None or self.dense_ms is None:
            return f"{counted}; not timed."
        faster = self.dense_ms.median / self.ms.median
        return (
            f"{counted}; {self.ms.median:.1f} ms (p95 {self.ms.p95:.1f}) beside {self.dense_ms.median:.1f} "
            f"ms dense, {faster:.2f} times as fast."
        )

    def _repr_html_(self) -> str:
        """Show the sentence in a notebook."""
        return sentence(str(self))


def measure(method: Adaptive, image: Tensor, repeat: int = 0) -> Cost:
    """Count, and time if asked to, a method and its dense network on the same images.

    Args:
        method: The adaptive method, in evaluation mode.
        image: [N, 3, H, W].
        repeat: Timed rounds, dense and adaptive alternating; 0 counts only.
    """
    if not callable(getattr(method, "dense_labels", None)):
        need(method, (), "method", "an adaptive method, such as foveal.SegBlocks(network, policy)")
    need(image, Tensor, "image", "a tensor [N, 3, H, W]")
    runs = {"method": lambda: method(image).labels, "dense": lambda: method.dense_labels(image)}
    macs = {name: count_macs(run) for name, run in runs.items()}
    times = alternate(runs, repeat) if repeat else {}
    return Cost(macs["method"], macs["dense"], times.get("method"), times.get("dense"))
