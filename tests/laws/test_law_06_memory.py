"""Law 6, the tile engine: with a memory, what a plan skips stays as it was."""

from __future__ import annotations

from random import Random

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from conformance import NAMES, Networks, answer, assert_close, make
from foveal.geometry.plan import SKIP, Plan
from foveal.tiles import split
from strategies import random_plan, random_size, sources
from tile_runs import (
    EXACT,
    TILE,
    a_plan,
    conv_macs,
    everything,
    network_and_image,
    remembered,
    run_with_memory,
    size_of,
    some_skipped,
)

# A still image


@settings(max_examples=40)
@given(source=sources())
def test_a_still_image_gives_the_same_answer_whatever_is_skipped(source: Random) -> None:
    network, image = network_and_image(source)
    plan = a_plan(source, image)
    expected, memory = run_with_memory(network, image, plan, None)
    for share in (source.random(), 0.5, 1.0):
        found, memory = run_with_memory(network, image, some_skipped(source, plan, share), memory)
        assert_close(found, expected, EXACT)
        assert torch.equal(torch.bincount(memory.layout.level), torch.bincount(plan.layout.level))


@given(source=sources())
def test_a_still_image_costs_nothing_when_all_is_skipped(source: Random) -> None:
    network, image = network_and_image(source, context=False)
    expected, memory = run_with_memory(network, image, a_plan(source, image), None)
    nothing = everything(image, SKIP)
    assert conv_macs(lambda: network(split(image, nothing, memory)).dense()) == 0
    assert torch.equal(run_with_memory(network, image, nothing, memory)[0], expected)


@pytest.mark.parametrize("name", NAMES)
def test_every_method_gives_a_still_image_the_same_answer_with_its_memory(
    name: str, image: Tensor, networks: Networks
) -> None:
    method = make(name, networks.nano(name))
    first = answer(method, image)
    with torch.no_grad():
        again = method(image, first.memory)
    assert_close(again.logits, first.logits)


# Passes over one image


@settings(max_examples=40)
@given(source=sources())
def test_what_was_refined_stays_refined(source: Random) -> None:
    """After passes that refine at random, a pass that skips all gives the last answer again."""
    network, image = network_and_image(source)
    memory, last = None, None
    for plan in (
        everything(image, source.randint(1, 3)), a_plan(source, image, 0.6), a_plan(source, image, 0.6),
    ):  # fmt: skip
        last, memory = run_with_memory(network, image, plan, memory)
    found, after = run_with_memory(network, image, everything(image, SKIP), memory)
    assert_close(found, last, EXACT)
    assert after.bytes == memory.bytes


@given(source=sources())
def test_a_pass_that_computes_all_forgets_what_was(source: Random) -> None:
    network, image = network_and_image(source)
    _, memory = run_with_memory(network, -image, a_plan(source, image), None)
    _, memory = run_with_memory(network, image * 2, a_plan(source, image, 0.5), memory)
    found, memory = run_with_memory(network, image, everything(image), memory)
    assert_close(found, network(image), EXACT)
    assert memory.layout.levels == (0,)


@settings(max_examples=40)
@given(source=sources())
def test_refining_in_several_passes_is_dense_where_a_pass_saw_all_that_it_needs(source: Random) -> None:
    """A sample sees 2 px around it: inside a tile it is exact whenever its tile is refined."""
    torch.manual_seed(source.randint(0, 2**30))
    network = nn.Conv2d(3, 2, 5, padding=2).double()
    image = torch.randn(1, 3, *random_size(source, TILE, 4), dtype=torch.float64)
    whole = everything(image)
    _, memory = run_with_memory(network, image, everything(image, 1), None)
    turn = torch.randint(0, 3, whole.levels.shape)
    found = image
    for k in range(3):
        plan = Plan(torch.where(turn == k, 0, SKIP), TILE, whole.size)
        found, memory = run_with_memory(network, image, plan, memory)
    assert memory.layout.levels == (0,)
    expected = network(image)
    rows, columns = (torch.arange(n) % TILE for n in size_of(image))
    inner = (((rows >= 2) & (rows < TILE - 2))[:, None] & ((columns >= 2) & (columns < TILE - 2))).double()
    assert_close(found * inner, expected * inner, EXACT)


@given(source=sources())
def test_refining_equals_a_mixed_plan_for_a_single_window(source: Random) -> None:
    """One convolution sees only the image, so it does not matter that coarse tiles came first."""
    torch.manual_seed(source.randint(0, 2**30))
    network = nn.Conv2d(3, 2, 5, padding=2).double()
    image = torch.randn(2, 3, *random_size(source, TILE, 4), dtype=torch.float64)
    mixed = random_plan(source, 2, size_of(image), TILE, 1)
    fine = Plan(torch.where(mixed.levels == 0, 0, SKIP), TILE, mixed.size)
    _, memory = run_with_memory(network, image, everything(image, 1), None)
    found = network(split(image, fine, memory))
    expected = network(split(image, mixed))
    chosen = mixed.layout.level == 0
    torch.testing.assert_close(found.tiles, expected.tiles[chosen], rtol=1e-12, atol=1e-12)


def test_averages_over_what_exists_count_remembered_neighbours() -> None:
    image, pool = torch.randn(1, 3, 29, 37), nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    memory = remembered(pool, image, everything(image)).memory()
    found = pool(split(image, some_skipped(Random(1), everything(image), 0.5), memory)).dense()
    assert_close(found, pool(image), 1e-6)
