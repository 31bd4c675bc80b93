"""Every method of the table as the laws ask for it, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from foveal.decoders import Decoder
from foveal.exits import Exits
from foveal.fusion import fuse
from foveal.gates import Gates
from foveal.methods import METHODS, AdaptiveSegmenter, Prediction, TrainableSegmenter
from foveal.methods.config import settings_of
from foveal.routes import Router
from samples import headless, ladder, lattice, nano, residual, residual_tower, tower

NAMES = list(METHODS)
ADAPTIVE = [name for name in NAMES if name != "dense"]
BY_TILES = [name for name in ADAPTIVE if METHODS[name].decides_for == "tile"]
TRAINABLE = [name for name in NAMES if issubclass(METHODS[name], TrainableSegmenter)]
CLASSES = 5
Make = Callable[[int], nn.Module]
ORDINARY: dict[object, Make] = {Router: lattice, Gates: residual}
"""Networks with global context for methods that need a kind of part, where not any network has it."""
HEADLESS: dict[object, Make] = {Exits: tower, Decoder: ladder, Router: lattice, Gates: residual_tower}
"""Networks without it whose work is where such methods may save it."""
RUN_ANY = [name for name in NAMES if METHODS[name].needs not in ORDINARY]
"""Methods that run any network."""


@dataclass(frozen=True)
class Networks:
    """The networks that methods run in the laws, as they are or with their layers joined.

    Attributes:
        fused: Whether `fuse` joins the layers.
    """

    fused: bool = False

    def _made(self, make_network: Callable[[], nn.Module]) -> Any:
        return fuse(make_network()) if self.fused else make_network()

    def nano(self, name: str = "") -> Any:
        """Make a bundled architecture with global context; for methods that need it, one of another kind."""
        return self._made(lambda: ordinary(name))

    def headless(self, name: str = "") -> Any:
        """Make a network without global context, whose work is where a method by name may save it."""
        kind = HEADLESS.get(METHODS[name].needs, headless) if name else headless
        return self._made(lambda: kind(CLASSES))


def ordinary_kind(name: str = "") -> Make:
    """Return what makes a small network that a method by name runs, from a number of classes."""
    return ORDINARY.get(METHODS[name].needs, nano) if name else nano


def ordinary(name: str = "", classes: int = CLASSES) -> Any:
    """Make a small network that a method by name runs."""
    return ordinary_kind(name)(classes)


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
    return kind.from_config(ordinary(name) if network is None else network, config).eval()


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
