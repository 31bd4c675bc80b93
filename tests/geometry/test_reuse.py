"""Which tiles to compute and which to keep: compared with all that can be chosen on small grids."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from foveal.geometry.plan import SKIP, Plan
from foveal.geometry.reuse import TIES, choose_levels
from samples import error_of

CELLS = 2


def error_of_plan(levels: Tensor, kept: Tensor, computed: Tensor) -> float:
    found = torch.where(levels == SKIP, kept, 0.0)
    for level, error in enumerate(computed):
        found = found + torch.where(levels == level, error, 0.0)
    return float(found.sum())


def tiles_of(levels: Tensor, tile: int = 8) -> int:
    size = levels.shape[0] * tile, levels.shape[1] * tile
    return int(Plan(levels[None].to(torch.int8), tile, size).tiles)


def every_plan() -> list[Tensor]:
    """List all plans of 2x2 cells with two levels, kept cells included."""
    whole = torch.full((CELLS, CELLS), 1)
    return [whole, *(torch.tensor(cells).view(CELLS, CELLS) for cells in product((0, SKIP), repeat=4))]


@given(seed=st.integers(0, 10**6), budget=st.integers(0, 5))
def test_no_plan_of_as_many_tiles_has_a_smaller_error(seed: int, budget: int) -> None:
    torch.manual_seed(seed)
    kept, computed = torch.rand(CELLS, CELLS).double(), torch.rand(2, CELLS, CELLS).double()
    found = choose_levels(kept, computed, budget)
    tiles, error = tiles_of(found), error_of_plan(found, kept, computed)
    assert tiles <= budget
    for plan in every_plan():
        if tiles_of(plan) <= tiles:
            assert error <= error_of_plan(plan, kept, computed) + 8 * TIES


@given(seed=st.integers(0, 10**6))
def test_without_a_limit_every_cell_gets_what_is_best_for_it(seed: int) -> None:
    torch.manual_seed(seed)
    kept, computed = torch.rand(5, 7).double(), torch.rand(1, 5, 7).double()
    found = choose_levels(kept, computed, 35)
    assert torch.equal(found == 0, computed[0] < kept)


@given(seed=st.integers(0, 10**6), budget=st.integers(0, 80))
def test_plans_are_quadtrees_within_the_budget(seed: int, budget: int) -> None:
    torch.manual_seed(seed)
    rows, columns = (int(x) for x in torch.randint(1, 10, (2,)))
    kept, computed = torch.rand(rows, columns), torch.rand(3, rows, columns).cumsum(0) / 3
    assert tiles_of(choose_levels(kept, computed, budget)) <= budget


def test_what_gains_nothing_is_kept() -> None:
    kept = torch.zeros(4, 4)
    assert bool((choose_levels(kept, torch.zeros(3, 4, 4), 16) == SKIP).all())
    kept[1, 2] = 1.0
    levels = choose_levels(kept, torch.zeros(1, 4, 4), 16)
    assert int((levels == 0).sum()) == 1 and int(levels[1, 2]) == 0


def test_equal_gains_are_not_all_or_nothing() -> None:
    levels = choose_levels(torch.ones(6, 6), torch.zeros(1, 6, 6), 17)
    assert tiles_of(levels) == 17


def test_a_tile_must_gain_what_is_asked_for() -> None:
    kept = torch.tensor([[0.2, 0.5]])
    levels = choose_levels(kept, torch.zeros(1, 1, 2), 2, least=0.3)
    assert levels.tolist() == [[SKIP, 0]]


@pytest.mark.parametrize(
    ("kept", "computed"),
    [(torch.ones(2, 2), torch.ones(1, 2, 3)), (torch.ones(2, 2) / 0, torch.ones(1, 2, 2))],
)
def test_errors_that_are_none_are_refused(kept: Tensor, computed: Tensor) -> None:
    assert "give" in error_of(lambda: choose_levels(kept, computed, 3))
