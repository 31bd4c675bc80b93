from __future__ import annotations

import pytest
import torch
from torch import Tensor

from conformance import NAMES, Networks, make
from foveal.methods import AdaptiveSegmenter


@pytest.fixture(params=[False, True], ids=["plain", "fused"])
def networks(request: pytest.FixtureRequest) -> Networks:
    """Give networks as they are, and with their layers joined."""
    return Networks(request.param)


@pytest.fixture(params=NAMES)
def method(request: pytest.FixtureRequest) -> AdaptiveSegmenter:
    """Give every method of the table, on an ordinary network."""
    return make(request.param)


@pytest.fixture
def image() -> Tensor:
    """Give a batch of two images [2, 3, 80, 112]."""
    return torch.rand(2, 3, 80, 112)
