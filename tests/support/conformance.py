"""Every method of the table as the laws ask for it, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from foveal.fusion import fuse
from foveal.methods import METHODS, AdaptiveSegmenter, DynamicDecoder, Prediction, TrainableSegmenter
from foveal.methods.config import settings_of
from foveal.methods.staged import StagedSegmenter
from samples import headless, ladder, nano, tower

NAMES = list(METHODS)
ADAPTIVE = [name for name in NAMES if name != "dense"]
BY_TILES = [name for name in ADAPTIVE if METHODS[name].decides_for == "tile"]
TRAINABLE = [name for name in NAMES if issubclass(METHODS[name], TrainableSegmenter)]
CLASSES = 5
BUILT: dict[type[AdaptiveSegmenter], Callable[[int], nn.Module]] = {
    StagedSegmenter: tower,
    DynamicDecoder: ladder,
}
"""Networks of methods that leave one early, or replace its decoder; others save on any."""


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

    def headless(self, name: str = "") -> Any:
        """Make a network without global context, whose work is where a method by name may save it."""
        kind = METHODS.get(name, AdaptiveSegmenter)
        made = next((made for base, made in BUILT.items() if issubclass(kind, base)), headless)
        return self._made(lambda: made(CLASSES))


def make(
    name: str, network: nn.Module | None = None, budget: float = 0.5, levels: int = 1, **wishes: Any
) -> AdaptiveSegmenter:
    """Make a method by name, in evaluation mode.

    Args:
        name: In `METHODS`.
        network: What it runs; a small one if absent.
        budget: Share of the dense work.
        levels: Coarsest level that may occur.
        wishes: Other settings; a method takes those that it has.
    """
    kind = METHODS[name]
    known = settings_of(kind.Config)
    wishes["max_level" if "max_level" in known else "coarse_level"] = levels
    config = kind.Config(budget, **{key: value for key, value in wishes.items() if key in known})
    return kind.from_config(nano(CLASSES) if network is None else network, config).eval()


@torch.no_grad()
def answer(method: AdaptiveSegmenter, image: Tensor) -> Prediction:
    """Segment images, without gradients."""
    return method(image)


@torch.no_grad()
def answers(method: AdaptiveSegmenter, frames: list[Tensor]) -> list[Prediction]:
    """Segment a video, the memory of a frame given on to the next."""
    found: list[Prediction] = []
    for frame in frames:
        found.append(method(frame, found[-1].memory if found else None))
    return found


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Compare values; the tolerance is a share of the largest magnitude."""
    assert found.shape == expected.shape
    scale = expected.abs().max().item() + 1e-30
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * scale)
