"""Law 6, a method that reads its memory: a still video costs only the decision and gives the same answer."""

from __future__ import annotations

from random import Random
from typing import final

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.nn import functional as F

from conformance import Networks, assert_close
from foveal.cost import count_macs
from foveal.geometry.plan import SKIP, Plan
from foveal.methods import AdaptiveSegmenter, MethodConfig, Prediction, Resources, Step, Trace
from foveal.methods.base import check_image
from foveal.ops import compose_tiles
from foveal.tiles import Memory, split
from networks import RandomNetwork
from strategies import sources
from tile_runs import EXACT, TILE, conv_macs

REACH = 8
"""Pixels that an answer of `headless` sees around its own: 1, 2 and 4 by its three convolutions, and one."""


@final
class ChangedTiles(AdaptiveSegmenter):
    """Computes the tiles whose surroundings changed since the frame that the memory holds.

    The last frame is read from the memory: the network's first layer recorded its tiles.

    Args:
        network: Module from images to logits whose first operation is a convolution.
        reach: Pixels that an answer sees around its own [px].
    """

    def __init__(self, network: nn.Module, reach: int = REACH) -> None:
        super().__init__()
        self.network, self.reach = network, reach

    uses_memory = True

    @classmethod
    def from_config(
        cls, network: nn.Module, config: MethodConfig, resources: Resources | None = None
    ) -> ChangedTiles:
        return cls(network)

    def forward(self, image: Tensor, memory: Memory | None = None) -> Prediction:
        plan = self.decide(image)
        if memory is not None:
            before = compose_tiles(memory.records[0].tiles, memory.layout, 0)
            differs = (image != before).any(1, keepdim=True).float()
            seen = F.max_pool2d(differs, 2 * self.reach + 1, 1, self.reach)
            cells = F.max_pool2d(seen, TILE, ceil_mode=True)[:, 0] > 0
            plan = Plan(torch.where(cells, 0, SKIP).to(torch.int8), TILE, plan.size)
        tiles = self.network(split(image, plan, memory, remember=True))
        logits = tiles.dense()
        return Prediction(logits, plan.size, Trace((Step("network", plan.work, plan),)), tiles.memory())

    def decide(self, image: Tensor) -> Plan:
        return Plan.uniform(len(image), check_image(image), TILE)

    def dense(self) -> nn.Module:
        return self.network

    def least_work(self, size: tuple[int, int]) -> float:
        return 0.0


def with_a_change(source: Random, frame: Tensor, side: int = 24) -> Tensor:
    """Return a frame that differs from another in one square of its first image."""
    row, column = source.randint(0, frame.shape[2] - 1), source.randint(0, frame.shape[3] - 1)
    after = frame.clone()
    after[0, :, row : row + side, column : column + side] += 0.5
    return after


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 96), (75, 130), (5, 3)])
def test_a_still_video_costs_nothing_and_gives_the_same_bits(
    size: tuple[int, int], networks: Networks
) -> None:
    method, frame = ChangedTiles(networks.headless()), torch.rand(2, 3, *size)
    first = method(frame)
    assert float(first.trace.work.min()) >= 1
    memory, answers = first.memory, []
    for _ in range(3):
        macs = count_macs(lambda m=memory: answers.append(method(frame, m)))
        again = answers[-1]
        assert macs.total == 0
        assert not again.trace.work.any()
        assert bool((again.trace.plan.levels == SKIP).all())
        assert torch.equal(again.logits, first.logits)
        assert torch.equal(again.labels, first.labels)
        assert again.memory.bytes == first.memory.bytes
        memory = again.memory


@torch.no_grad()
def test_global_context_gives_the_same_bits_on_a_still_video() -> None:
    """Modules that see the whole map run again, on the map that the memory holds."""
    network = RandomNetwork(Random(4)).float()
    method, frame = ChangedTiles(network), torch.rand(2, 3, 70, 90)
    first = method(frame)
    again = method(frame, first.memory)
    assert not again.trace.work.any()
    assert torch.equal(again.logits, first.logits)


@torch.no_grad()
def test_a_change_is_paid_for_by_the_tiles_that_see_it(networks: Networks) -> None:
    network = networks.headless()
    method, frame = ChangedTiles(network), torch.rand(2, 3, 128, 192)
    first = method(frame)
    changed = frame.clone()
    changed[0, :, 40, 40] += 0.5
    answers: list[Prediction] = []
    macs = count_macs(lambda: answers.append(method(changed, first.memory))).convolution
    expected = torch.full((2, 8, 12), SKIP)
    expected[0, 2:4, 2:4] = 0  # rows and columns 32 to 48 px reach into the tiles 2 and 3
    assert torch.equal(answers[0].trace.plan.levels.long(), expected)
    assert macs == 4 * count_macs(lambda: network(torch.rand(1, 3, TILE, TILE))).convolution
    assert torch.equal(answers[0].logits[1], first.logits[1])


@settings(max_examples=20)
@given(source=sources())
def test_a_video_gets_frame_by_frame_the_answers_of_frames_seen_anew(source: Random) -> None:
    torch.manual_seed(source.randint(0, 2**30))
    method = ChangedTiles(Networks().headless().double())
    size = source.randint(1, 6 * TILE), source.randint(1, 8 * TILE)
    frame, memory = torch.rand(2, 3, *size, dtype=torch.float64), None
    with torch.no_grad():
        for _ in range(4):
            found = method(frame, memory)
            assert_close(found.logits, method.network(frame), EXACT)
            frame, memory = with_a_change(source, frame) if source.random() < 0.7 else frame, found.memory


@settings(max_examples=15)
@given(source=sources())
def test_random_networks_give_the_answer_of_a_frame_seen_anew(source: Random) -> None:
    """Networks that see 64 px around: a change in one corner leaves the other end of a strip alone."""
    torch.manual_seed(source.randint(0, 2**30))
    network = RandomNetwork(source, context=False).double()
    method = ChangedTiles(network, reach=64)
    frame = torch.rand(1, 3, source.randint(1, 40), 14 * TILE, dtype=torch.float64)
    changed = frame.clone()
    changed[:, :, :, : source.randint(1, 3 * TILE)] += 0.5
    with torch.no_grad():
        memory = method(frame).memory
        found = method(changed, memory)
        assert_close(found.logits, network(changed), EXACT)
    plan = found.trace.plan
    whole, part = plan.levels.numel(), int(plan.tiles.sum())
    assert 0 < part < whole
    macs = [conv_macs(lambda m=m: method(changed, m)) for m in (None, memory)]
    assert macs[1] * whole == macs[0] * part


@torch.no_grad()
def test_a_method_that_skips_too_much_is_found_out() -> None:
    """The comparison is no formality: with too short a reach the answer is not that of a fresh frame."""
    torch.manual_seed(0)
    network = Networks().headless().double()
    frame = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    changed = frame.clone()
    changed[:, :, :, 14:16] += 0.5  # the answers of the next tile see this
    method = ChangedTiles(network, reach=0)
    found = method(changed, method(frame).memory)
    assert not torch.allclose(found.logits, network(changed), atol=1e-6)
