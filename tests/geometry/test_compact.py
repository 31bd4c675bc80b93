from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import conv2d

from foveal.geometry.compact import choose_compact, compact_gain, compact_order


def grid(seed: int, rows: int, columns: int, share: float = 1.0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    values = torch.rand(rows, columns, generator=draw, dtype=torch.float64) ** 3
    return values, torch.rand(rows, columns, generator=draw) < share


def best(values: Tensor, isolated: float, count: int) -> float:
    """Try all sets of a size."""
    sets = torch.tensor(list(combinations(range(values.numel()), count)))
    chosen = torch.zeros(len(sets), *values.shape, dtype=torch.float64)
    chosen.flatten(1).scatter_(1, sets, 1.0)
    around = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    around[0, 0, 1, 1] = 0
    refined = conv2d(chosen[:, None], around, padding=1) / conv2d(
        torch.ones_like(chosen[:1, None]), around, padding=1
    )
    return float((chosen * values * (isolated + (1 - isolated) * refined[:, 0])).sum((1, 2)).max())


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


def whole_grid(seed: int, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Values whose shares among 3, 5 and 8 neighbours are whole, so that sums are exact; many are equal."""
    draw = torch.Generator().manual_seed(seed)
    values = 480.0 * torch.randint(0, 4, (rows, columns), generator=draw)
    return values, torch.rand(rows, columns, generator=draw) < 0.7


def test_a_set_gains_what_its_tiles_and_their_neighbours_say() -> None:
    values, chosen = torch.tensor([[8.0, 80.0, 800.0], [1.0, 5.0, 7.0]]), torch.zeros(2, 3, dtype=torch.bool)
    assert compact_gain(values, chosen, 0.25) == 0
    chosen[0, 0] = chosen[0, 1] = chosen[1, 2] = True  # with 1 of 3, 2 of 5, 1 of 3 neighbours
    expected = 8 * (0.25 + 0.75 / 3) + 80 * (0.25 + 0.75 * 2 / 5) + 7 * (0.25 + 0.75 / 3)
    assert compact_gain(values, chosen, 0.25) == pytest.approx(expected, rel=1e-12)
    assert (
        compact_gain(torch.tensor([[3.0]]), torch.tensor([[True]]), 0.25) == 0.75
    )  # there are no neighbours
    assert compact_gain(torch.tensor([[4.0], [8.0]]), torch.tensor([[True], [True]]), 0.25) == 12


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 7), (6, 1), (2, 5), (5, 4)])
def test_the_tile_that_loses_least_goes_and_of_equal_ones_the_later(rows: int, columns: int) -> None:
    for seed in range(20):
        values, is_open = whole_grid(seed, rows, columns)
        left, gone = is_open.clone().flatten(), []

        def after(k: int, left: Tensor = left, values: Tensor = values) -> float:
            rest = left.clone()
            rest[k] = False
            return compact_gain(values, rest.view(values.shape), 0.25)

        while left.any():
            gone.append(max(left.nonzero().flatten().tolist(), key=lambda k: (after(k), k)))
            left[gone[-1]] = False
        assert compact_order(values, is_open, 0.25).tolist() == gone[::-1]


def test_values_that_single_precision_tells_apart_only_after_a_sum_are_ordered() -> None:
    values = torch.tensor([[2.0**24, 2.0**24 + 2, 2.0**24]])
    values[0, 2] = 2.0**24 + 4
    assert compact_order(values, values > 0, 1.0).tolist() == [2, 1, 0]
    assert compact_order(values, values < 0, 1.0).dtype == torch.int64
