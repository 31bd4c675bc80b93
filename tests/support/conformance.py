"""Every method of the table as the laws ask for it, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from foveal.fusion import fuse
from foveal.methods import METHODS, Prediction, Request, Segmenter
from samples import headless, nano

NAMES = list(METHODS)
ADAPTIVE = [name for name in NAMES if name != "dense"]
CLASSES = 5


@dataclass(frozen=True)
class Networks:
    """The networks that methods run in the laws, as they are or with their layers joined.

    Attributes:
        fused: Whether `fuse` joins the layers.
    """

    fused: bool = False

    def _made(self, make_network: Callable[[], nn.Module]) -> Any:
        return fuse(make_network()) if self.fused else make_network()

    def nano(self) -> Any:
        """Make a bundled architecture with global context."""
        return self._made(lambda: nano(CLASSES))

    def headless(self) -> Any:
        """Make a network of stride 4 without global context."""
        return self._made(lambda: headless(CLASSES))


def make(name: str, network: nn.Module | None = None, **wishes: Any) -> Segmenter:
    """Make a method by name, in evaluation mode; half the budget and two levels unless asked otherwise."""
    network = nano(CLASSES) if network is None else network
    return METHODS[name].on_request(network, Request(**{"budget": 0.5, "coarsest": 1, **wishes})).eval()


@torch.no_grad()
def answer(method: Segmenter, image: Tensor) -> Prediction:
    """Segment images, without gradients."""
    return method(image)


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Compare values; the tolerance is a share of the largest magnitude."""
    assert found.shape == expected.shape
    scale = expected.abs().max().item() + 1e-30
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * scale)
