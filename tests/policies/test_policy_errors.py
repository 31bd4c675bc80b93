"""What is no policy, or no budget for one, is refused in one sentence."""

from __future__ import annotations

import pytest
import torch

from foveal.policies import (
    View,
    create_policy,
)
from policy_cases import NAMES, UNCERTAINTIES, make, run
from samples import headless


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


def test_a_budget_that_the_coarse_pass_uses_up_is_refused() -> None:
    with pytest.raises(ValueError, match=r"budget is 0\.2 and the coarse pass alone takes 0\.25"):
        run("entropy", torch.rand(1, 3, 64, 64), headless(), budget=0.2, tile=8, coarse_level=1)


def test_a_budget_below_the_cheapest_plan_is_refused() -> None:
    with pytest.raises(ValueError, match=r"budget is 0\.01 .*everything at level 1, takes 0\.25; raise the"):
        create_policy("detail", 0.01, tile=8, max_level=1)(View(torch.rand(1, 3, 64, 64)))


@pytest.mark.parametrize("name", ["detail", "random", "oracle"])
@pytest.mark.parametrize("max_level", [0, 1, 3, 4, 5])
def test_any_number_of_levels_is_planned(name: str, max_level: int) -> None:
    image = torch.rand(1, 3, 256, 256)
    policy = make(name, image, headless(), budget=0.9999, tile=4, max_level=max_level)
    assert 0.99 < float(policy(View(image)).work) <= 1
