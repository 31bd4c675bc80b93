"""Law 2: all tiles at level l give the dense answer on the image reduced by 2^l."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch.nn import functional as F

from conformance import answer, assert_close
from foveal.methods import CoarseToFine, Refinement, SegBlocks
from foveal.ops import compose_tiles
from foveal.policies import Uniform
from foveal.tiles import split
from networks import RandomNetwork
from samples import nano
from strategies import sources
from tile_runs import EXACT, everything, network_and_image, reduced


@settings(max_examples=60)
@given(source=sources())
def test_everything_at_a_level_is_the_dense_network_on_the_reduced_image(source: Random) -> None:
    network, image = network_and_image(source)
    level = source.randint(1, 3)
    out = network(split(image, everything(image, level)))
    assert_close(compose_tiles(out.tiles, out.layout, level), network(reduced(image, level)), EXACT)


def enlarged_answer_of(network: Any, image: Tensor, level: int, like: Tensor) -> Tensor:
    """Return the dense answer on the reduced image, enlarged to the size of other logits."""
    with torch.no_grad():
        small = network(reduced(image, level))
    large = F.interpolate(small, scale_factor=2**level, mode="bilinear", align_corners=False)
    return large[:, :, : like.shape[2], : like.shape[3]]


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("size", [(64, 64), (100, 70), (33, 129), (2, 3)])
def test_segblocks_at_one_level_gives_the_dense_answer_on_the_reduced_image(
    size: tuple[int, int], level: int
) -> None:
    network, image = nano(), torch.rand(2, 3, *size)
    found = answer(SegBlocks(network, Uniform(32, level)), image).logits
    assert_close(found, enlarged_answer_of(network, image, level, found))


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("size", [(64, 64), (100, 70), (33, 129)])
def test_a_first_pass_alone_gives_the_dense_answer_on_the_reduced_image(
    size: tuple[int, int], level: int
) -> None:
    network, image = nano(), torch.rand(2, 3, *size)
    method = CoarseToFine(network, 1.0, 32, level, Refinement(threshold=torch.inf))
    found = answer(method, image).logits
    assert_close(found, enlarged_answer_of(network, image, level, found))


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (1, 97), (16, 1), (3, 5), (17, 16), (31, 33)])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_networks_on_tiles_take_any_size(level: int, size: tuple[int, int]) -> None:
    for seed in range(3):
        network = RandomNetwork(Random(seed)).double()
        image = torch.randn(2, 3, *size, dtype=torch.float64)
        out = network(split(image, everything(image, level)))
        assert out.dense().shape == network(image).shape
        assert_close(compose_tiles(out.tiles, out.layout, level), network(reduced(image, level)), EXACT)
