"""What C interpolates is counted, as arithmetic says: PyTorch's dispatcher does not see it."""

from __future__ import annotations

import pytest
import torch

from foveal.cost import Macs, count_macs
from foveal.geometry.plan import Plan
from foveal.kernels import build
from foveal.ops import classify, compose_tiles, enlarge

pytestmark = pytest.mark.skipif(not build.available(), reason="no compiler")
CHANNELS, SIDE = 5, 8
PLAN = Plan(torch.tensor([[[1, 1, 0, 0], [1, 1, 0, 0]]], dtype=torch.int8), SIDE, (16, 32))
"""One tile at half resolution beside four at full resolution."""


def test_enlarged_tiles_cost_4_a_sample() -> None:
    tiles = torch.rand(5, CHANNELS, SIDE, SIDE)
    found = count_macs(lambda: enlarge(tiles, PLAN.layout, 3, backend="native"))
    assert found == Macs(interpolation=4 * 5 * CHANNELS * (3 * SIDE) ** 2)


def test_composed_tiles_cost_4_a_sample_that_is_enlarged() -> None:
    tiles = torch.rand(5, CHANNELS, SIDE, SIDE)
    found = count_macs(lambda: compose_tiles(tiles, PLAN.layout, 0, backend="native"))
    assert found == Macs(interpolation=4 * CHANNELS * (2 * SIDE) ** 2)
    fine = Plan.uniform(1, (16, 32), SIDE)
    assert (
        count_macs(lambda: compose_tiles(torch.rand(8, 3, SIDE, SIDE), fine.layout, backend="native"))
        == Macs()
    )


def test_labels_cost_4_a_logit_of_the_image() -> None:
    logits = torch.rand(2, CHANNELS, 4, 6)
    found = count_macs(lambda: classify(logits, (16, 24), backend="native"))
    assert found == Macs(interpolation=4 * 2 * CHANNELS * 16 * 24)
    assert count_macs(lambda: classify(logits, (4, 6), backend="native")) == Macs()
