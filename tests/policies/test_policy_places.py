"""Where the policies refine."""

from __future__ import annotations

from math import prod

import pytest
import torch
from torch import Tensor

from foveal.geometry.plan import Plan
from foveal.policies import (
    View,
    create_policy,
)
from policy_cases import SIZE, TILE, UNCERTAINTIES, certain

COARSE = 16  # tiles of level 2 that cover SIZE


def budget_for(tiles: int) -> float:
    """Budget that pays for a number of tiles on SIZE, one of them being the tile above the budget."""
    return (tiles - 1) * TILE**2 / prod(SIZE)


def refined(plan: Plan) -> Tensor:
    return plan.levels[0] < int(plan.levels.max())


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
