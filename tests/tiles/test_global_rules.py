"""Global means and batch statistics on tiles equal those over the whole map."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.geometry.plan import SKIP, Plan
from foveal.tiles import split
from strategies import plans
from tile_rules import SIZES, Run, assert_equals_dense, image

# The whole image at once


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "run",
    [
        nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveAvgPool2d((1, 1)),
        lambda x: x.mean((2, 3)),
        lambda x: x.mean(dim=[-1, -2], keepdim=True),
        lambda x: torch.mean(x, (2, 3), True),
        lambda x: F.adaptive_avg_pool2d(F.max_pool2d(x, 3, 2, 1), 1),
    ],
)
def test_global_mean(run: Run, size: tuple[int, int]) -> None:
    assert_equals_dense(run, image(size))


def test_global_mean_ignores_what_tiles_hold_outside_the_image() -> None:
    assert_equals_dense(lambda x: x.log().mean((2, 3)), image().abs())


@given(plan=plans((8,), max_level=2))
def test_global_mean_of_a_constant_is_the_constant(plan: Plan) -> None:
    x = torch.full((len(plan.levels), 2, *plan.size), 3.0)
    found = split(x, plan).mean((2, 3))
    torch.testing.assert_close(found, torch.full_like(found, 3.0))


def test_global_mean_weighs_samples_by_the_area_that_they_stand_for() -> None:
    x = torch.zeros(1, 1, 8, 16)
    x[..., :8] = 1
    levels = torch.tensor([[[1, 1, 0, 0], [1, 1, 0, 0]]])
    assert split(x, Plan(levels, 4, (8, 16))).mean((2, 3)).item() == 0.5


def test_global_mean_counts_only_what_finer_tiles_have_left_of_a_remembered_one() -> None:
    seen = split(torch.zeros(1, 1, 8, 8), Plan.uniform(1, (8, 8), 4, 1), remember=True)
    seen.mean((2, 3))
    one = Plan(torch.tensor([[[SKIP, 0], [SKIP, SKIP]]]), 4, (8, 8))
    assert split(torch.ones(1, 1, 8, 8), one, seen.memory()).mean((2, 3)).item() == 0.25


def test_global_mean_of_remembered_tiles_smaller_than_their_cells_at_a_ragged_edge() -> None:
    x, size = torch.randn(1, 1, 8, 24), (8, 24)

    def run(plan: Plan, memory: Any = None) -> tuple[Tensor, Any]:
        out = F.max_pool2d(split(x, plan, memory, remember=True), 4)
        return out.mean((2, 3)), out.memory()

    expected, memory = run(Plan.uniform(1, size, 4, 2))
    torch.testing.assert_close(run(Plan.uniform(1, size, 4, SKIP), memory)[0], expected)


def test_squeeze_and_excitation_sees_each_image_alone() -> None:
    first, second = (nn.Conv2d(4, 4, 1).double() for _ in range(2))

    def run(x: Any) -> Any:
        return x * second(first(F.adaptive_avg_pool2d(x, 1)).relu()).sigmoid()

    assert_equals_dense(run, image(images=3))


# Batch norm


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm(affine: bool, size: tuple[int, int]) -> None:
    norm = nn.BatchNorm2d(4, affine=affine).double().eval()
    nn.init.uniform_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    assert_equals_dense(norm, image(size))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("options", [{}, {"momentum": None}, {"track_running_stats": False}])
def test_batch_norm_in_training_is_that_of_all_samples(
    options: dict[str, Any], size: tuple[int, int]
) -> None:
    dense, tiled = (nn.BatchNorm2d(4, **options).double() for _ in range(2))
    x = image(size) * 3 + 1
    for _ in range(2):
        found = tiled(split(x, Plan.uniform(2, size, 8)) * 1.0).dense()
        torch.testing.assert_close(found, dense(x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(dict(tiled.state_dict()), dict(dense.state_dict()))


@given(plan=plans((8,), max_level=2))
def test_batch_norm_in_training_gives_zero_mean_over_all_tiles(plan: Plan) -> None:
    norm = nn.BatchNorm2d(3, eps=1e-12).double()
    x = split(torch.randn(len(plan.levels), 3, *plan.size, dtype=torch.float64), plan)
    inside = plan.layout.inside(8)
    rows = x.tiles.permute(0, 2, 3, 1)
    rows = rows.flatten(0, 2) if inside is None else rows[inside]
    if len(rows) < 2:
        return
    out = norm(x + 5).tiles.permute(0, 2, 3, 1)
    out = out.flatten(0, 2) if inside is None else out[inside]
    torch.testing.assert_close(out.mean(0), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-9)
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * rows.var(0))
