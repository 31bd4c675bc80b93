from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from foveal.geometry.compact import choose_compact, compact_gain, compact_order


def grid(seed: int, rows: int, columns: int, share: float = 1.0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    values = torch.rand(rows, columns, generator=draw, dtype=torch.float64) ** 3
    return values, torch.rand(rows, columns, generator=draw) < share


def best(values: Tensor, isolated: float, count: int) -> float:
    """Try all sets of a size."""
    found = 0.0
    for chosen in combinations(range(values.numel()), count):
        mask = torch.zeros(values.numel(), dtype=torch.bool)
        mask[list(chosen)] = True
        found = max(found, compact_gain(values, mask.view(values.shape), isolated))
    return found


def highest(values: Tensor, count: int) -> Tensor:
    mask = torch.zeros(values.numel(), dtype=torch.bool)
    mask[values.flatten().argsort(descending=True)[:count]] = True
    return mask.view(values.shape)


@pytest.mark.parametrize("isolated", [0.15, 0.3, 0.6])
def test_it_is_close_to_the_best_choice_and_better_than_the_highest_values(isolated: float) -> None:
    ours, oracle, plain = 0.0, 0.0, 0.0
    for seed in range(12):
        values, _ = grid(seed, 4, 4)
        for count in (3, 5, 7):
            gain = compact_gain(values, choose_compact(values, values >= 0, isolated, count), isolated)
            most = best(values, isolated, count)
            assert gain <= most + 1e-9
            assert gain >= 0.7 * most
            ours, oracle = ours + gain, oracle + most
            plain += compact_gain(values, highest(values, count), isolated)
    assert ours >= 0.96 * oracle
    assert ours > plain


def test_neighbours_that_do_not_matter_leave_the_highest_values() -> None:
    values, _ = grid(3, 9, 11)
    for count in (1, 17, 60):
        assert torch.equal(choose_compact(values, values >= 0, 1.0, count), highest(values, count))


def test_a_lonely_peak_gives_way_to_a_group() -> None:
    values = torch.zeros(7, 7, dtype=torch.float64)
    values[1, 1] = 1.0
    values[4:7, 4:7] = 0.7
    chosen = choose_compact(values, values >= 0, 0.2, 9)
    assert bool(chosen[4:7, 4:7].all())
    assert not chosen[1, 1]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from([0.0, 0.13, 0.3, 1.0]),
    st.sampled_from([1.0, 0.5, 0.0]),
)
def test_choices_are_nested_open_and_of_the_size_that_is_asked_for(
    seed: int, rows: int, columns: int, isolated: float, share: float
) -> None:
    values, is_open = grid(seed, rows, columns, share)
    order = compact_order(values, is_open, isolated)
    assert sorted(order.tolist()) == is_open.flatten().nonzero().flatten().tolist()
    before = torch.zeros_like(is_open)
    for count in range(0, rows * columns + 1, 1 + rows * columns // 7):
        chosen = choose_compact(values, is_open, isolated, count)
        assert int(chosen.sum()) == min(count, int(is_open.sum()))
        assert not bool((chosen & ~is_open).any())
        assert not bool((before & ~chosen).any())
        before = chosen
