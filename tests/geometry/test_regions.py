"""Regions: what is chosen, what is computed around it, and that it fits."""

from __future__ import annotations

from random import Random

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from foveal.geometry.plan import SKIP, Plan
from foveal.geometry.regions import Regions, count_tiles
from samples import error_of
from strategies import sources


def cells(*rows: str) -> Tensor:
    return torch.tensor([[[c == "#" for c in row] for row in rows]])


def drawn(levels: Tensor) -> list[str]:
    return ["".join("." if level == SKIP else str(level) for level in row) for row in levels.tolist()]


CHOSEN = cells("......", "......", "..#...", "......", "......")


def test_a_margin_is_computed_around_what_is_chosen() -> None:
    assert drawn(Regions(1, 1).levels(CHOSEN)[0]) == ["......", ".000..", ".000..", ".000..", "......"]
    assert drawn(Regions(1, 0).levels(CHOSEN)[0]) == ["......", "......", "..0...", "......", "......"]


def test_the_rest_is_as_coarse_as_squares_without_a_chosen_cell_allow() -> None:
    expected = ["111122", "111122", "001122", "001122", "222222"]
    levels = Regions(1, 0, 2).levels(CHOSEN.roll(-1, 2))
    assert drawn(levels[0]) == expected
    assert torch.equal(Plan(levels, 4, (20, 24)).tiles, count_tiles(levels))


def test_nothing_chosen_computes_nothing() -> None:
    for level in (SKIP, 2):
        assert bool((Regions(2, 1, level).levels(torch.zeros(1, 5, 6, dtype=torch.bool)) == SKIP).all())


def test_without_a_margin_all_at_full_resolution_is_used() -> None:
    bare, within = Regions(1, 0, 1), Regions(1, 1, 1)
    assert int(bare.used(CHOSEN, bare.levels(CHOSEN)).sum()) == 4
    assert torch.equal(within.used(CHOSEN, within.levels(CHOSEN)), CHOSEN)


@settings(max_examples=60)
@given(source=sources())
def test_what_is_chosen_fits_and_makes_a_plan(source: Random) -> None:
    torch.manual_seed(source.randint(0, 2**30))
    rows, columns = source.randint(1, 13), source.randint(1, 13)
    regions = Regions(source.randint(1, 3), source.randint(0, 2), source.choice([SKIP, 1, 2]))
    scores, tiles = torch.rand(rows, columns), source.uniform(0, rows * columns)
    chosen = regions.choose(scores, tiles)
    levels = regions.levels(chosen[None])
    assert int(count_tiles(levels)) <= tiles
    assert torch.equal(Plan(levels, 8, (8 * rows, 8 * columns)).tiles, count_tiles(levels))
    assert torch.equal(chosen, regions.choose(scores, tiles))
    above = regions.choose(scores, tiles, 0.5)
    assert not bool((above & ~regions.best(scores, int((regions.rates(scores) >= 0.5).sum()))).any())


@settings(max_examples=30)
@given(source=sources())
def test_single_tiles_are_the_best_that_fit_to_one_tile(source: Random) -> None:
    torch.manual_seed(source.randint(0, 2**30))
    scores, tiles = torch.rand(7, 9), source.uniform(0, 63)
    chosen = Regions().choose(scores, tiles)
    assert int(chosen.sum()) == int(tiles)
    assert torch.equal(chosen, Regions().best(scores, int(tiles)))


def test_a_region_that_does_not_fit_is_passed_over() -> None:
    """The region at the middle takes nine tiles with its margin, the one at the corner four."""
    scores = torch.zeros(5, 5)
    scores[2, 2], scores[0, 0] = 2.0, 1.0
    chosen = Regions(1, 1).choose(scores, 5, 0.5)
    assert chosen.nonzero().tolist() == [[0, 0]]


def test_more_tiles_never_choose_less() -> None:
    scores = torch.rand(9, 11, generator=torch.Generator().manual_seed(0))
    for regions in (Regions(1, 1), Regions(2, 1), Regions(2, 0, 2)):
        spent = [
            int(count_tiles(regions.levels(regions.choose(scores, tiles)[None])))
            for tiles in range(0, 100, 3)
        ]
        assert spent == sorted(spent) and spent[-1] > spent[1]


@pytest.mark.parametrize("wrong", [(0, 1, SKIP), (1, -1, SKIP), (1, 1, -2)])
def test_what_is_no_region_is_refused(wrong: tuple[int, int, int]) -> None:
    assert "give a side of at least 1" in error_of(lambda: Regions(*wrong))
    assert "give numbers" in error_of(lambda: Regions().choose(torch.rand(2, 2), float("nan")))
