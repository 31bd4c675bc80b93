"""Coarse to fine: what is spent, where, and what stays of the coarser passes."""

from __future__ import annotations

import random
from itertools import pairwise
from math import prod

import pytest
import torch
from hypothesis import given, settings
from torch import nn

from conformance import answer
from foveal.cost import count_macs
from foveal.methods import CoarseToFine, CoarseToFineConfig, Refinement, SegBlocks
from foveal.policies import Uniform
from foveal.policies.controls import chance
from foveal.policies.uncertainty import weighted_entropy
from networks import RandomNetwork
from refining import TILE, brightness, held, lit, make
from samples import error_of, headless, nano
from strategies import random_size, sizes, sources


@pytest.fixture
def network() -> nn.Module:
    return headless()


# What is spent


@settings(max_examples=3)
@given(sources(), sizes(TILE, 4))
def test_the_whole_budget_is_one_pass_at_full_resolution(source: random.Random, size) -> None:
    network, image = RandomNetwork(source), torch.rand(2, 3, *size)
    found = answer(make(network, 1.0, 2), image)
    assert len(found.trace.steps) == 1
    assert torch.equal(found.logits, answer(SegBlocks(network, Uniform(TILE)), image).logits)
    with torch.no_grad():
        dense = network(image)
    torch.testing.assert_close(found.logits, dense, rtol=1e-4, atol=1e-4 * float(dense.abs().max()))


@given(source=sources())
def test_the_budget_is_spent_to_within_a_tile_on_every_image(source: random.Random) -> None:
    size, coarse_level = random_size(source, TILE, 7), source.randint(0, 3)
    budget, score = source.uniform(0.03, 0.99), source.choice([weighted_entropy, brightness, chance])
    image = torch.rand(3, 3, *size) * torch.tensor([1.0, 0.1, 0.0]).view(3, 1, 1, 1)
    method = make(headless(), budget, coarse_level, score=score)
    message = error_of(lambda: answer(method, image))
    assert bool(message) == (method.least_work(size) > budget)
    if message:
        assert message.startswith("budget is ")
        return
    prediction = answer(method, image)
    for work, levels in zip(prediction.trace.work.tolist(), held(prediction), strict=True):
        assert work <= budget + 1e-9
        assert work > budget - TILE**2 / prod(size) - 1e-9 or not levels.any()


@settings(max_examples=15)
@given(source=sources())
def test_plans_of_growing_budgets_are_nested(source: random.Random) -> None:
    size = (source.randint(40, 70), source.randint(40, 70))
    image, network = torch.rand(2, 3, *size), headless()
    budgets = sorted(source.uniform(0.45, 0.99) for _ in range(3))
    refined = [held(answer(make(network, budget), image)) == 0 for budget in budgets]
    assert all(bool((more | ~less).all()) for less, more in pairwise(refined))
    assert refined[-1].any()


def test_every_pass_is_complete_and_counted(network: nn.Module) -> None:
    image, tile = torch.rand(2, 3, 70, 100), torch.rand(1, 3, TILE, TILE)
    method = make(network, 0.6, 2)
    each = count_macs(lambda: network(tile)).convolution
    stream, seen = method.stream(image), []
    for _ in range(3):
        macs = count_macs(lambda: seen.append(next(stream))).convolution
        step = seen[-1].trace.steps[-1]
        assert macs == each * int(step.plan.tiles.sum())
        assert torch.equal(step.work, step.plan.tiles.double() * TILE**2 / (70 * 100))
        assert seen[-1].labels.shape == (2, 70, 100)
    assert next(stream, None) is None
    assert [[step.name for step in p.trace.steps] for p in seen] == [
        ["coarse"],
        ["coarse", "refine"],
        ["coarse", "refine", "refine"],
    ]
    works = torch.stack([step.work for step in seen[-1].trace.steps])
    for count, prediction in enumerate(seen, 1):
        torch.testing.assert_close(prediction.trace.work, works[:count].sum(0))
    for before, after in pairwise(seen):
        now = after.trace.plan.levels
        assert bool((held(before)[now >= 0] == now[now >= 0] + 1).all())
    last = answer(method, image)
    assert torch.equal(last.logits, seen[-1].logits)
    assert set(held(last).unique().tolist()) == {0, 1, 2}


def test_the_first_pass_is_everything_at_its_level(network: nn.Module) -> None:
    image = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        first = next(make(network, 0.6, 2).stream(image))
    assert torch.equal(first.logits, answer(SegBlocks(network, Uniform(TILE, 2)), image).logits)


# Where


def test_a_lower_threshold_refines_a_superset(network: nn.Module) -> None:
    image = torch.rand(1, 3, 64, 90)
    first = answer(make(network, 1.0, threshold=torch.inf), image)
    assert len(first.trace.steps) == 1
    rates = make(network).rates(image, first)
    before = torch.zeros_like(held(first), dtype=torch.bool)
    for share in (0.9, 0.7, 0.5):
        threshold = float(rates.quantile(share))
        refined = held(answer(make(network, 1.0, threshold=threshold), image)) == 0
        assert bool((refined | ~before).all())
        assert int(refined.sum()) == int((rates >= threshold).sum())
        before = refined
    everything = answer(make(network, 1.0, threshold=0.0), image)
    assert float(everything.trace.work.max()) <= 1
    assert float(everything.trace.work.min()) > 1 - TILE**2 / (64 * 90)


def test_a_threshold_costs_no_more_than_dense_on_the_smallest_image(network: nn.Module) -> None:
    image = torch.rand(1, 3, 5, 7)
    found = answer(make(network, 1.0, threshold=torch.inf), image)
    assert not held(found).any()
    assert torch.equal(found.logits, answer(make(network, 1.0), image).logits)


def test_one_budget_for_all_images_goes_where_it_gains(network: nn.Module) -> None:
    image, share = lit(0.2, 1.0, 0.6), TILE**2 / 64**2
    alone, shared = (
        answer(make(network, 0.5, 2, score=brightness, shared=s), image).trace.work for s in (False, True)
    )
    assert len(alone.unique()) == 1
    assert float(shared[0]) < float(shared[2]) < float(shared[1])
    assert float(alone.sum()) - share - 1e-9 <= float(shared.sum()) <= 3 * 0.5 + 1e-9
    single = answer(make(network, 0.5, 2, score=brightness, shared=True), image[:1]).trace.work
    assert torch.equal(single, alone[:1])


def test_the_gain_of_levels_decides_between_wide_and_deep(network: nn.Module) -> None:
    image = lit(1.0)
    wide, deep = (
        held(answer(make(network, 0.4, 2, score=brightness, level_gain=w), image))
        for w in ((0.01, 1.0), (1.0, 0.01))
    )
    assert int((wide < 2).sum()) > int((deep < 2).sum())
    assert int((wide == 0).sum()) < int((deep == 0).sum())


def test_the_brightest_tiles_are_refined(network: nn.Module) -> None:
    image = lit(1.0)
    refined = held(answer(make(network, 0.25 + 10 / 64, score=brightness), image))[0] == 0
    order = image[0, 0, ::TILE, ::TILE].flatten().argsort(descending=True)
    assert set(refined.flatten().nonzero()[:, 0].tolist()) == set(order[:10].tolist())


def test_an_image_that_is_done_is_not_changed_by_the_others(network: nn.Module) -> None:
    image = lit(0.05, 1.0)
    method = make(network, 0.9, 2, score=brightness, threshold=0.3)
    both = answer(method, image)
    for n in range(2):
        alone = answer(method, image[n : n + 1])
        assert alone.trace.work[0] == both.trace.work[n]
        torch.testing.assert_close(alone.logits[0], both.logits[n], rtol=0, atol=1e-6)
    assert both.trace.work[0] == both.trace.steps[0].work[0]
    assert bool((held(both)[1] == 0).any())


# What stays


def test_the_share_that_is_kept_of_the_coarser_answer(network: nn.Module) -> None:
    image = torch.rand(1, 3, 64, 64)
    first = answer(make(network, threshold=torch.inf), image).logits
    fresh, half, kept = (answer(make(network, logit_blend=k), image).logits for k in (0.0, 0.5, 1.0))
    assert not torch.equal(fresh, first)
    assert torch.equal(kept, first)
    torch.testing.assert_close(half, (fresh + first) / 2)


def test_places_away_from_what_is_refined_stay_exactly() -> None:
    network, image = nano(), torch.rand(1, 3, 256, 256) * 0.1
    image[:, :, :32, :32] = 1.0
    method = CoarseToFine(network, 0.9, 32, 1, Refinement(brightness, threshold=0.3)).eval()
    with torch.no_grad():
        first, last = method.stream(image)
    assert (held(last)[0] == 0).nonzero().tolist() == [[0, 0]]
    changed = (first.logits != last.logits).any(1)[0]
    stride = 256 // changed.shape[0]
    assert changed[: 32 // stride, : 32 // stride].any()
    beyond = 64 // stride
    assert not changed[beyond:].any()
    assert not changed[:, beyond:].any()


def test_a_refined_tile_is_taught_through_its_coarse_neighbours(network: nn.Module) -> None:
    image = lit(1.0).requires_grad_()
    method = make(network, 0.25 + 1 / 64, score=brightness)
    last = list(method.stream(image))[-1]
    row, column = (held(last)[0] == 0).nonzero()[0].tolist()
    place = slice(2 * row, 2 * row + 2), slice(2 * column, 2 * column + 2)
    last.logits[(..., *place)].square().sum().backward()
    own = torch.zeros(64, 64, dtype=torch.bool)
    own[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE] = True
    gradient = image.grad[0].abs().sum(0)
    assert bool((gradient[own] > 0).any())
    assert bool((gradient[~own] > 0).any())


# What remains to gain


def test_less_gain_remains_as_more_is_spent(network: nn.Module) -> None:
    image = torch.rand(6, 3, 64, 72)
    left = []
    for budget in (0.3, 0.5, 0.8, 1.0):
        method = make(network, budget)
        left.append(float(method.remaining_gain(image, answer(method, image)).mean()))
    assert all(less < more for more, less in pairwise(left))
    assert left[-1] == 0


def test_what_remains_is_the_gain_per_pixel_of_what_is_coarse(network: nn.Module) -> None:
    image = lit(1.0, 0.5)
    method = make(network, 0.4, threshold=torch.inf, score=brightness)
    expected = image.mean((1, 2, 3)).double()
    torch.testing.assert_close(
        method.remaining_gain(image, answer(method, image)), expected, rtol=1e-5, atol=0
    )


# What is asked for


def test_settings_are_taken_over(network: nn.Module) -> None:
    config = CoarseToFineConfig(0.5, "margin", 16, coarse_level=1, threshold=0.3, level_gain=(0.2, 0.7))
    method = CoarseToFine.from_config(network, config)
    assert (method.budget, method.tile, method.coarse_level) == (0.5, 16, 1)
    assert (method.refinement.level_gain, method.refinement.threshold) == ((0.2, 0.7), 0.3)
    other = CoarseToFine.from_config(network, CoarseToFineConfig(policy="entropy"))
    assert other.refinement.level_gain == Refinement.level_gain
    assert CoarseToFineConfig().policy == "weighted_entropy"
    detail = CoarseToFineConfig(policy="detail")
    assert "given detail" in error_of(lambda: CoarseToFine.from_config(network, detail))


@pytest.mark.parametrize(
    "numbers",
    [
        {"level_gain": ()},
        {"level_gain": (-0.1,)},
        {"level_gain": (torch.nan,)},
        {"logit_blend": 1.5},
        {"threshold": torch.nan},
    ],
)
def test_numbers_that_mean_nothing_are_refused(numbers: dict[str, object]) -> None:
    assert "give a" in error_of(lambda: Refinement(**numbers))  # type: ignore[arg-type]


def test_a_budget_below_the_first_pass_says_what_to_do(network: nn.Module) -> None:
    message = error_of(lambda: answer(make(network, 0.2), torch.rand(1, 3, 64, 64)))
    assert message.startswith(
        "budget is 0.2 and the first pass at level 1 takes 0.25 of the dense work; raise the budget or "
    )
    assert "coarse_level is -1" in error_of(lambda: make(network, coarse_level=-1))


def test_a_direct_step_goes_to_full_resolution_at_once_and_keeps_the_budget() -> None:
    image = torch.rand(2, 3, 96, 128)
    method = make(headless(), 0.4, 2, schedule="direct")
    found = answer(method, image)
    assert [step.name for step in found.trace.steps] == ["coarse", "refine"]
    assert set(held(found).flatten().tolist()) == {0, 2}
    assert 0.4 - 2 * TILE**2 / (96 * 128) <= float(found.trace.work.min())
    assert float(found.trace.work.max()) <= 0.4 + 1e-9
    assert "schedule is 'jump'" in error_of(lambda: Refinement(schedule="jump"))
    assert list(Refinement(schedule="direct").steps(3)) == [0] and list(Refinement().steps(3)) == [2, 1, 0]
