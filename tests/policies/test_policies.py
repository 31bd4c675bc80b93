from __future__ import annotations

from itertools import pairwise
from math import prod
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch.nn import functional as F

from foveal.geometry.plan import Plan, grid
from foveal.methods import Prediction, SegBlocks
from foveal.policies import (
    POLICIES,
    Policy,
    PolicyNet,
    RandomPlans,
    ScoredPolicy,
    Uniform,
    View,
    create_policy,
)
from foveal.policies.budgeted import per_cell
from foveal.policies.uncertainty import entropy
from samples import error_of, headless, nano, shaken
from strategies import random_plan, sources

SIZE = (256, 256)
TILE = 16
COARSE = 16  # tiles of level 2 that cover SIZE
NAMES = list(POLICIES)
UNCERTAINTIES = [name for name, entry in POLICIES.items() if entry.needs_pass]
DECISION = 0.02
"""Work of the learned policy itself, on whole blocks."""


def make(name: str, image: Tensor, network: torch.nn.Module, **options: float) -> Policy:
    """Make any policy of the table; the oracle gets random labels of its images, "learned" random weights."""
    given: Any = None
    if name == "oracle":
        given = network, (image.sum(1) * 7).long() % 5
    elif name == "learned":
        given = policy_net(2 * int(options.get("tile", 32)))
    return create_policy(name, given=given, **options)


def policy_net(block: int) -> PolicyNet:
    """Make a small untrained policy network, the same one every time."""
    with torch.random.fork_rng():
        torch.manual_seed(block)
        net: PolicyNet = shaken(PolicyNet(block, 4, 2)).eval()
    net.share = DECISION
    return net


def run(name: str, image: Tensor, network: torch.nn.Module, **options: float) -> Prediction:
    with torch.no_grad():
        return SegBlocks(network, make(name, image, network, **options))(image)


def budget_for(tiles: int) -> float:
    """Budget that pays for a number of tiles on SIZE, one of them being the tile above the budget."""
    return (tiles - 1) * TILE**2 / prod(SIZE)


def refined(plan: Plan) -> Tensor:
    return plan.levels[0] < int(plan.levels.max())


# Budgets


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25)
@given(source=sources())
def test_a_budget_is_kept_and_used_or_refused_with_reason(name: str, source: Random) -> None:
    torch.manual_seed(source.randint(0, 2**30))
    size = tuple(source.choice([source.randint(1, 40), source.randint(30, 200)]) for _ in range(2))
    tile, coarsest, look = source.choice([8, 16, 20]), source.randint(0, 3), source.randint(1, 3)
    budget = source.choice([source.uniform(0.01, 1), source.uniform(0.3, 0.9), 1.0])
    image, network = torch.rand(1, 3, *size), headless()
    one = tile**2 / prod(size)
    entry = POLICIES[name]
    asked = budget if entry.budget is None else entry.budget
    coarsest = 1 if name == "learned" else coarsest
    cheapest = prod(-(-cells >> coarsest) for cells in grid(size, tile)) * one
    spent = prod(-(-side >> look) for side in size) / prod(size) if entry.needs_pass and asked < 1 else 0.0
    if name == "learned" and asked < 1:
        spent = DECISION * prod(-(-side // (2 * tile)) * 2 * tile for side in size) / prod(size)

    def answer() -> Prediction:
        return run(name, image, network, budget=budget, tile=tile, max_level=coarsest, coarse_level=look)

    if asked not in (0, 1) and (spent >= asked or cheapest > asked - spent + one + 1e-9):
        assert error_of(answer).startswith("budget is ")
        return
    trace = answer().trace
    plan = trace.plan
    assert plan is not None
    assert plan.size == size
    assert plan.tile == tile
    assert 0 <= int(plan.levels.min()) <= int(plan.levels.max()) <= coarsest
    assert trace.work.tolist() == pytest.approx([plan.work.item() + spent])
    if asked == 1:
        assert plan.levels.max() == 0
    elif asked == 0:
        assert plan.levels.min() == coarsest
    else:
        assert trace.work.item() <= asked + one + 1e-9
        dearest_split = 3 * one
        assert plan.levels.max() == 0 or trace.work.item() + dearest_split > asked + one - 1e-9


@pytest.mark.parametrize("name", NAMES)
def test_plans_are_deterministic_and_those_of_each_image_alone(name: str) -> None:
    network, image = nano(), torch.rand(3, 3, 100, 132)
    options = {"budget": 0.5, "tile": 32, "max_level": 1}
    together = run(name, image, network, **options).trace
    assert torch.equal(together.plan.levels, run(name, image, network, **options).trace.plan.levels)
    for n in range(3):
        alone = run(name, image[n : n + 1], network, **options).trace
        assert torch.equal(alone.plan.levels[0], together.plan.levels[n])
        assert alone.work.item() == pytest.approx(together.work[n].item())


@pytest.mark.parametrize("name", [name for name, entry in POLICIES.items() if entry.budget is None])
def test_more_budget_refines_more_and_unrefines_nothing(name: str) -> None:
    network, image = headless(), torch.rand(1, 3, 128, 160)
    plans = [run(name, image, network, budget=b, tile=16).trace.plan for b in (0.3, 0.4, 0.5, 0.7, 0.9)]
    for less, more in pairwise(plans):
        assert bool((more.levels <= less.levels).all())
        assert more.work > less.work


def test_the_first_look_is_a_step_of_the_trace() -> None:
    steps = run(
        "entropy", torch.rand(2, 3, 64, 96), headless(), budget=0.5, tile=16, coarse_level=1
    ).trace.steps
    assert [step.name for step in steps] == ["coarse pass", "network"]
    assert steps[0].work.tolist() == [0.25, 0.25]
    assert steps[0].plan is None


def test_no_look_is_taken_where_everything_is_computed_anyway() -> None:
    trace = run("entropy", torch.rand(1, 3, 64, 96), headless(), budget=1.0, tile=16).trace
    assert [step.name for step in trace.steps] == ["network"]


# Places


def certain(stride: int) -> Tensor:
    """Logits that are sure of class 0 everywhere."""
    logits = torch.zeros(1, 5, SIZE[0] // stride, SIZE[1] // stride)
    logits[:, 0] = 20.0
    return logits


@pytest.mark.parametrize("stride", [1, 4, 16])
@pytest.mark.parametrize("name", [name for name in UNCERTAINTIES if name != "regional_entropy"])
@pytest.mark.parametrize(("top", "left"), [(0, 0), (64, 128), (192, 192)])
def test_uncertainty_refines_the_doubtful_place(name: str, stride: int, top: int, left: int) -> None:
    logits = certain(stride)
    logits[:, :, top // stride : (top + 64) // stride, left // stride : (left + 64) // stride] = 0.0
    policy = create_policy(name, budget_for(COARSE + 15), TILE, max_level=2)
    plan = policy(View(torch.rand(1, 3, *SIZE), logits=logits))
    expected = torch.full((16, 16), 2, dtype=torch.int8)
    expected[top // TILE : top // TILE + 4, left // TILE : left // TILE + 4] = 0
    assert torch.equal(plan.levels[0], expected)


@pytest.mark.parametrize("stride", [4, 16])
def test_regional_doubt_refines_the_doubtful_place_and_its_surroundings(stride: int) -> None:
    logits = certain(stride)
    logits[:, :, 128 // stride : 144 // stride, 128 // stride : 144 // stride] = 0.0
    policy = create_policy("regional_entropy", budget_for(COARSE + 12), TILE, max_level=2)
    closer = refined(policy(View(torch.rand(1, 3, *SIZE), logits=logits)))
    near = torch.zeros(16, 16, dtype=torch.bool)
    near[4:12, 4:12] = True
    assert torch.equal(closer, near)


def two_places(first: list[float], second: list[float]) -> View:
    """Show one distribution of classes in the upper left tile, another in the lower right, else certainty."""
    logits = certain(4)
    logits[0, :, :16, :16] = torch.tensor(first).clamp(min=1e-9).log()[:, None, None]
    logits[0, :, -16:, -16:] = torch.tensor(second).clamp(min=1e-9).log()[:, None, None]
    return View(torch.rand(1, 3, *SIZE), logits=logits)


def choice_between(name: str, view: View) -> str:
    plan = create_policy(name, budget_for(COARSE + 3), TILE, max_level=2)(view)
    first, second = (bool(refined(plan)[rows, rows].all()) for rows in (slice(0, 4), slice(12, 16)))
    assert int(refined(plan).sum()) == 16
    return {(True, False): "first", (False, True): "second"}[first, second]


def test_margin_prefers_a_tie_and_entropy_many_candidates() -> None:
    view = two_places([0.5, 0.5, 0, 0, 0], [0.6, 0.1, 0.1, 0.1, 0.1])
    assert choice_between("margin", view) == "first"
    assert choice_between("entropy", view) == "second"


def test_weighted_entropy_prefers_doubt_about_rare_classes() -> None:
    view = two_places([0.5, 0.5, 0, 0, 0], [0, 0, 0.55, 0.45, 0])
    view.logits[:, :2, :, 20:44] = torch.tensor([0.0, 20.0]).view(1, 2, 1, 1)
    assert choice_between("entropy", view) == "first"
    assert choice_between("weighted_entropy", view) == "second"


def test_uncertainty_of_a_network_with_one_class_is_the_same_everywhere() -> None:
    view = View(torch.rand(1, 3, *SIZE), logits=torch.randn(1, 1, 64, 64))
    for name in UNCERTAINTIES:
        assert create_policy(name, 0.4, TILE)(view).work <= 0.4 + TILE**2 / prod(SIZE)


@pytest.mark.parametrize("half", ["left", "right", "top", "bottom"])
def test_detail_refines_the_textured_half(half: str) -> None:
    image = torch.full((1, 3, *SIZE), 0.5)
    half_of = {
        "left": (slice(None), slice(0, 128)),
        "right": (slice(None), slice(128, None)),
        "top": (slice(0, 128), slice(None)),
        "bottom": (slice(128, None), slice(None)),
    }[half]
    image[:, :, *half_of] = torch.rand(1, 3, *SIZE)[:, :, *half_of]
    expected = torch.full((16, 16), 2, dtype=torch.int8)
    expected[tuple(slice(s.start and s.start // TILE, s.stop and s.stop // TILE) for s in half_of)] = 0
    plan = create_policy("detail", budget_for(8 + 128), TILE)(View(image))
    assert torch.equal(plan.levels[0], expected)
    less = create_policy("detail", budget_for(8 + 100), TILE)(View(image))
    assert not bool((refined(less) & (expected == 2)).any())


def test_detail_does_not_depend_on_brightness_or_sign() -> None:
    image = torch.rand(1, 3, 96, 128) * 0.5
    plans = [create_policy("detail", 0.4, TILE)(View(x)).levels for x in (image, image + 0.25, 1 - image)]
    assert torch.equal(plans[0], plans[1])
    assert torch.equal(plans[0], plans[2])


def test_centre_refines_the_squares_nearest_to_the_centre() -> None:
    image = torch.rand(1, 3, 192, 256)
    for budget in (0.3, 0.5, 0.8):
        near = refined(create_policy("centre", budget, TILE, max_level=1)(View(image)))[::2, ::2]
        y, x = ((torch.arange(n) + 0.5) / n - 0.5 for n in near.shape)
        distance = y[:, None] ** 2 + x[None] ** 2
        assert distance[near].max() <= distance[~near].min() + 1e-6


def test_chance_is_another_plan_for_another_image() -> None:
    plan = create_policy("random", 0.5, TILE)(View(torch.rand(2, 3, 128, 128)))
    assert not torch.equal(plan.levels[0], plan.levels[1])


def brightness(image: Tensor) -> Tensor:
    """Tell bright from dark, pixel by pixel: a network that is wrong where detail is lost."""
    return torch.cat([0.5 - image[:, :1], image[:, :1] - 0.5], 1) * 40


def test_the_oracle_refines_where_the_coarse_answer_is_wrong() -> None:
    image = torch.zeros(1, 3, *SIZE)
    rows = torch.arange(SIZE[0]) // 2 % 2
    image[:, :, 64:128, 128:192] = rows[64:128, None].float()
    labels = (image[:, 0] > 0.5).long()
    policy = create_policy("oracle", budget_for(COARSE + 3), TILE, 2, given=(brightness, labels))
    plan = policy(View(image))
    expected = torch.full((16, 16), 2, dtype=torch.int8)
    expected[4:8, 8:12] = 1
    assert torch.equal(plan.levels[0], expected)


def test_the_oracle_ignores_void() -> None:
    image = torch.zeros(1, 3, *SIZE)
    image[:, :, ::2, :64] = 1.0
    image[:, :, :64, 192:] = (torch.arange(64) // 2 % 2)[:, None].float()
    labels = (image[:, 0] > 0.5).long()
    labels[:, :, :64] = 255
    plan = create_policy("oracle", budget_for(COARSE + 3), TILE, 2, given=(brightness, labels))(View(image))
    assert not bool(refined(plan)[:, :4].any())
    assert bool(refined(plan)[:4, 12:].all())


# Errors


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("entorpy", {}, "no policy named 'entorpy'; did you mean 'entropy'\\? available: all, none"),
        ("zzz", {}, "no policy named 'zzz'; available: all"),
        ("oracle", {}, "the oracle needs labels"),
        ("learned", {}, "needs a trained policy network; give a model that was trained with one"),
        *[
            (name, {"budget": budget}, "budget is .*; it must be above 0 and at most 1")
            for name in NAMES
            for budget in (0, -0.5, 2, float("nan"), float("inf"))
        ],
        ("detail", {"tile": 0}, "tile is 0 px"),
        ("none", {"max_level": -1}, "max_level -1"),
        ("entropy", {"coarse_level": -1}, "coarse_level -1"),
    ],
)
def test_what_is_no_policy_is_refused(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_policy(name, **options)


@pytest.mark.parametrize("name", UNCERTAINTIES)
def test_uncertainty_needs_logits(name: str) -> None:
    with pytest.raises(ValueError, match="needs the logits of a coarse pass"):
        create_policy(name)(View(torch.rand(1, 3, 64, 64)))


def test_a_budget_that_the_look_uses_up_is_refused() -> None:
    with pytest.raises(ValueError, match=r"budget is 0\.2 and the coarse pass alone takes 0\.25"):
        run("entropy", torch.rand(1, 3, 64, 64), headless(), budget=0.2, tile=8, coarse_level=1)


def test_a_budget_below_the_cheapest_plan_is_refused() -> None:
    with pytest.raises(ValueError, match=r"budget is 0\.01 .*everything at level 1, takes 0\.25; raise the"):
        create_policy("detail", 0.01, tile=8, max_level=1)(View(torch.rand(1, 3, 64, 64)))


@pytest.mark.parametrize("name", ["detail", "random", "oracle"])
@pytest.mark.parametrize("coarsest", [0, 1, 3, 4, 5])
def test_any_number_of_levels_is_planned(name: str, coarsest: int) -> None:
    image = torch.rand(1, 3, 256, 256)
    policy = make(name, image, headless(), budget=0.9999, tile=4, max_level=coarsest)
    assert 0.99 < float(policy(View(image)).work) <= 1


# Integration over cells


@settings(max_examples=50)
@given(source=sources())
def test_per_cell_integrates_what_lies_in_the_image(source: Random) -> None:
    torch.manual_seed(source.randint(0, 2**30))
    size = tuple(source.choice([source.randint(1, 8), source.randint(1, 100)]) for _ in range(2))
    tile, stride = source.choice([3, 6, 8, 12, 20, 32]), 2 ** source.randint(0, 5)
    density = torch.rand(2, *(-(-side // stride) for side in size))
    before = density.clone()
    pixels = density.double().repeat_interleave(stride, 1).repeat_interleave(stride, 2)
    pixels = pixels[:, : size[0], : size[1]]
    rows, columns = grid(size, tile)
    whole = F.pad(pixels, (0, columns * tile - size[1], 0, rows * tile - size[0]))
    expected = whole.view(2, rows, tile, columns, tile).mean((2, 4))
    found = per_cell(density, size, tile)
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close((found * tile**2).sum(), pixels.sum().float(), rtol=1e-4, atol=1e-4)
    assert torch.equal(density, before)


def test_one_map_serves_every_step_and_a_short_tuple_its_last() -> None:
    view = View(torch.rand(1, 3, 128, 128))
    density = torch.rand(1, 32, 32)
    plans = [ScoredPolicy(lambda _, m=m: m, 0.4, 8, 3)(view) for m in (density, (density,), (density,) * 3)]
    assert torch.equal(plans[0].levels, plans[1].levels)
    assert torch.equal(plans[0].levels, plans[2].levels)


# Plans that ask for nothing


@pytest.mark.parametrize("level", [0, 1, 2])
def test_uniform_puts_every_image_at_its_level(level: int) -> None:
    plan = Uniform(16, level)(View(torch.rand(2, 3, 33, 70)))
    assert torch.equal(plan.levels, Plan.uniform(2, (33, 70), 16, level).levels)
    assert plan.size == (33, 70)


@settings(max_examples=40)
@given(source=sources())
def test_random_plans_stay_within_their_budgets(source: Random) -> None:
    torch.manual_seed(source.randint(0, 2**30))
    size = (source.randint(20, 150), source.randint(20, 150))
    low = source.uniform(0.01, 0.9)
    policy = RandomPlans((8, 16, 24), source.randint(0, 3), (low, source.uniform(low, 1.0)))
    logits = torch.randn(2, 5, -(-size[0] // 4), -(-size[1] // 4)) if source.random() < 0.5 else None
    plan = policy(View(torch.rand(2, 3, *size), logits=logits))
    one = plan.tile**2 / prod(size)
    dearest_start = min(1, policy.max_level)  # a plan draws its coarsest level, from 1 on
    cheapest = prod(-(-cells >> dearest_start) for cells in grid(size, plan.tile)) * one
    assert plan.tile in policy.tiles
    assert int(plan.levels.max()) <= policy.max_level
    if cheapest < 1:
        assert float(plan.work.max()) <= max(policy.budgets[1], cheapest) + one + 1e-9
        assert float(plan.work.min()) > min(policy.budgets[0] - 2 * one, 1) - 1e-9


def test_random_plans_differ_and_follow_the_seed() -> None:
    view = View(torch.rand(1, 3, 128, 128))
    policy = RandomPlans()
    torch.manual_seed(3)
    first = [policy(view) for _ in range(20)]
    torch.manual_seed(3)
    second = [policy(view) for _ in range(20)]
    for one, other in zip(first, second, strict=True):
        assert one.tile == other.tile
        assert torch.equal(one.levels, other.levels)
    assert {plan.tile for plan in first} == set(policy.tiles)
    assert len({float(plan.work) for plan in first}) > 5


def test_random_plans_above_a_budget_of_1_are_at_full_resolution() -> None:
    plan = RandomPlans((16,), 2, (1.0, 1.5))(View(torch.rand(1, 3, 64, 64)))
    assert plan.levels.max() == 0


def test_random_plans_lean_to_doubt_if_they_see_it() -> None:
    logits = certain(4)
    logits[:, :, :32] = 0.0
    view = View(torch.rand(1, 3, *SIZE), logits=logits)
    doubt = per_cell(entropy(view), SIZE, TILE)[0]
    plans = [RandomPlans((TILE,), 2, (0.3, 0.6))(view).levels[0] for _ in range(20)]
    in_doubt, sure = (
        sum(float((plan == 0)[mask].double().mean()) for plan in plans) for mask in (doubt > 1, doubt < 1)
    )
    assert in_doubt > 2 * sure


def test_a_policy_sees_what_another_plan_left_only_through_the_view() -> None:
    """Any callable from a view to a plan will do."""
    image = torch.rand(2, 3, 64, 64)
    plan = random_plan(Random(1), 2, (64, 64), 8, 2)
    assert SegBlocks(headless(), lambda view: plan)(image).trace.plan is plan
