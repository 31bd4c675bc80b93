"""The memory of a pass: what it holds, and what it is refused for."""

from __future__ import annotations

from random import Random

import pytest
import torch
from torch import nn

from foveal.geometry.plan import Plan
from foveal.tiles import NetworkChanged, split
from networks import RandomNetwork
from tile_runs import TILE, everything, remembered, size_of


def test_a_memory_of_another_size_number_or_tile_is_refused() -> None:
    network, image = RandomNetwork(Random(0)), torch.randn(2, 3, 32, 48)
    memory = remembered(network, image, everything(image)).memory()
    for other, tile in ((torch.randn(2, 3, 32, 32), TILE), (image[:1], TILE), (image, 8)):
        plan = Plan.uniform(len(other), size_of(other), tile)
        with pytest.raises(
            ValueError, match=r"the memory is of 2 images of \(32, 48\) with tile 16, the plan is"
        ):
            split(other, plan, memory)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (
            nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(3, 3, 3, padding=1)),
            "call 0 was conv2d of 3 channels, 16 samples a side, now max_pool2d of 3 channels",
        ),
        (
            nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 3, 3, padding=1)),
            "call 1 was conv2d of 3 channels, 16 samples a side, now conv2d of 5 channels",
        ),
        (
            nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), nn.Conv2d(3, 3, 3, padding=1)),
            "call 1 was .* 16 samples a side, now conv2d of 3 channels, 8 samples a side; the network",
        ),
        (
            nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)]),
            "call 2 is conv2d of 3 channels, 16 samples a side, the memory ends before; start anew",
        ),
    ],
)
def test_a_memory_of_another_network_is_refused(second: nn.Module, message: str) -> None:
    first = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1))
    image = torch.randn(1, 3, 32, 32)
    plan = everything(image)
    memory = first(split(image, plan, remember=True)).memory()
    with pytest.raises(NetworkChanged, match=message):
        second(split(image, plan, memory))


def test_nothing_is_recorded_unless_asked_for() -> None:
    image = torch.randn(1, 3, 32, 32)
    plan = everything(image)
    assert split(image, plan).memory() is None
    memory = nn.Conv2d(3, 3, 3, padding=1)(split(image, plan, remember=True)).memory()
    assert memory.bytes == 4 * image.numel()


def test_a_memory_carries_no_gradients() -> None:
    network, image = RandomNetwork(Random(0)), torch.randn(1, 3, 32, 32)
    memory = remembered(network, image, everything(image)).memory()
    assert not any(record.tiles.requires_grad for record in memory.records)
