"""Law 3: spending less costs less, and counted MACs are the plan's arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from random import Random

import pytest
import torch
from hypothesis import given, settings

from conformance import ADAPTIVE, BY_TILES, NAMES, Networks, answer, make, ordinary
from foveal.cost import count_macs
from foveal.methods import METHODS
from foveal.tiles import split
from strategies import sources
from tile_runs import TILE, a_plan, conv_macs, everything, network_and_image, remembered

# The tile engine


@settings(max_examples=15)
@given(source=sources())
def test_counted_macs_are_those_of_a_tile_times_the_tiles(source: Random) -> None:
    network, image = network_and_image(source, context=False)
    plan = a_plan(source, image, skip=source.choice([0.0, 0.5]))
    one = conv_macs(lambda: network(torch.zeros(1, 3, TILE, TILE, dtype=torch.float64)))
    assert conv_macs(lambda: network(split(image, plan))) == one * int(plan.tiles.sum())


@settings(max_examples=15)
@given(source=sources())
def test_counted_macs_do_not_depend_on_a_memory(source: Random) -> None:
    network, image = network_and_image(source, context=False)
    memory = remembered(network, image, a_plan(source, image)).memory()
    plan = a_plan(source, image, skip=0.5)
    without = conv_macs(lambda: network(split(image, plan)))
    assert conv_macs(lambda: network(split(image, plan, memory))) == without


@settings(max_examples=15)
@given(source=sources())
def test_counted_macs_never_rise_with_a_level(source: Random) -> None:
    network, image = network_and_image(source, context=False)
    whole = [everything(image, level) for level in range(3)]
    macs = [conv_macs(lambda p=plan: network(split(image, p))) for plan in whole]
    assert macs == sorted(macs, reverse=True)


# Every method


def planned(run: Callable[[], object], interpolation: bool = False) -> int:
    """Count what plans and shares are about: convolutions and matrix products, or all there is."""
    macs = count_macs(run)
    return macs.total if interpolation else macs.convolution + macs.product


@pytest.mark.parametrize("name", NAMES)
def test_counted_macs_fall_with_the_budget(name: str) -> None:
    network, image = ordinary(name), torch.rand(1, 3, 192, 256)
    made = {budget: make(name, network, budget=budget) for budget in (0.3, 0.45, 0.6, 0.8, 1.0)}
    methods = {b: m for b, m in made.items() if name not in ADAPTIVE or m.least_work((192, 256)) <= b}
    assert len(methods) >= 4, "what a budget does not pay for is refused: law 4"
    macs = [planned(lambda m=m: m(image)) for m in methods.values()]
    dense = planned(lambda: network(image))
    assert all(less <= more for less, more in pairwise(macs))
    assert macs[-1] == dense
    if name in BY_TILES:
        assert all(less < more for less, more in pairwise(macs))
    if name in ADAPTIVE:
        assert macs[0] < macs[-1]
        for budget, ours in zip(list(methods)[:-1], macs[:-1], strict=True):
            assert ours <= (budget + 0.1) * dense


@pytest.mark.parametrize("budget", [0.35, 0.6, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_counted_macs_are_those_of_the_trace(name: str, budget: float, networks: Networks) -> None:
    network, image = networks.headless(name), torch.rand(2, 3, 128, 192)
    method = make(name, network, budget=budget, tile=16)
    steps = answer(method, image).trace.steps
    everything_counts = METHODS[name].counts_interpolation
    dense, tile = (
        planned(lambda size=size: network(torch.rand(1, 3, *size)), everything_counts)
        for size in ((128, 192), (16, 16))
    )
    expected = 0
    for step in steps:
        if step.plan is None:
            expected += round(dense * float(step.work.sum()))
        else:
            expected += tile * int(step.plan.tiles.sum())
            assert torch.equal(step.work, step.plan.work)
    assert planned(lambda: method(image), everything_counts) == expected
