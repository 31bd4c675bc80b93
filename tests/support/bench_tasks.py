"""Small tasks for the tests of `foveal bench`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from foveal.benchmark.runtimes import Choice
from foveal.benchmark.task import Task
from foveal.data.dataset import default_palette
from foveal.data.synthetic import street
from foveal.hub.card import Card
from foveal.hub.checkpoint import Model
from foveal.kernels import build
from foveal.methods import MethodConfig, SegBlocksConfig
from samples import headless, shaken

needs_kernels = pytest.mark.skipif(not build.available(), reason="no compiler")
SIZE = (64, 96)
TORCH = Choice("torch", "f32")


def configs(*pairs: tuple[float, int]) -> list[MethodConfig]:
    """Make settings of segblocks from budgets and coarsest levels."""
    return [SegBlocksConfig(budget, "entropy", 32, level, 2) for budget, level in pairs]


def model(network: Any) -> Model:
    """Give a network of five classes a name and a card."""
    return Model("small", network, Card("swiftnet_nano", tuple("abcde"), default_palette(5)))


def task(*pairs: tuple[float, int], **changes: Any) -> Task:
    """Make a task on one small street, with changes."""
    image = street(24, SIZE)[0][None]
    plain = Task(model(shaken(headless())), image, "segblocks", configs(*pairs), [TORCH], repeat=1)
    return replace(plain, **changes)
