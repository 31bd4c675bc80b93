"""Plans are quadtrees over an image of any size."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from foveal.geometry.plan import SKIP, Plan, overlay, shade
from foveal.storage.schema import MOST_LEVEL
from samples import error_of
from strategies import plans, random_plan, sizes, sources


@given(plan=plans(skip=True))
def test_every_cell_belongs_to_the_one_tile_that_covers_it(plan: Plan) -> None:
    layout = plan.layout
    seen = torch.zeros_like(plan.levels, dtype=torch.long)
    for b in range(len(layout)):
        n, level, row, column = (int(x[b]) for x in (layout.image, layout.level, layout.row, layout.column))
        assert row % 2**level == column % 2**level == 0
        square = n, slice(row, row + 2**level), slice(column, column + 2**level)
        assert (plan.levels[square] == level).all()
        assert (layout.owner[square] == b).all()
        seen[square] += 1
    assert torch.equal(seen, (plan.levels != SKIP).long())
    assert torch.equal(layout.owner < 0, plan.levels == SKIP)


@given(plan=plans(skip=True))
def test_work_is_the_samples_of_the_tiles_over_the_pixels(plan: Plan) -> None:
    counts = torch.tensor([(plan.layout.image == n).sum() for n in range(len(plan.levels))])
    assert torch.equal(plan.tiles, counts)
    expected = counts.double() * plan.tile**2 / (plan.size[0] * plan.size[1])
    torch.testing.assert_close(plan.work, expected, rtol=0, atol=1e-15)


def test_work_of_whole_cells_is_one_at_level_0_and_a_quarter_at_level_1() -> None:
    assert Plan.uniform(1, (64, 64), 16).work.tolist() == [1.0]
    assert Plan.uniform(1, (64, 64), 16, level=1).work.tolist() == [0.25]
    assert Plan.uniform(1, (64, 64), 16, SKIP).work.tolist() == [0.0]


def test_shares_of_the_levels_sum_to_one() -> None:
    plan = Plan(torch.tensor([[[1, 1, 0, SKIP], [1, 1, 0, 0]]]), 8, (16, 32))
    assert [plan.share(level) for level in (SKIP, 0, 1)] == [1 / 8, 3 / 8, 4 / 8]


@pytest.mark.parametrize(
    ("levels", "tile", "size", "message"),
    [
        (torch.zeros(1, 1, 1).long(), 0, (4, 4), r"a tile and sides of at least 1 px, given 0, \(4, 4\)"),
        (torch.zeros(1, 1, 1).long(), 4, (0, 4), r"sides of at least 1 px, given 4, \(0, 4\)"),
        (torch.zeros(1, 2, 2).long(), 4, (9, 5), r"\(1, 2, 2\).* 9x5 with tile 4 needs \[N, 3, 2\]"),
        (torch.zeros(3, 2).long(), 4, (9, 5), r"levels are \(3, 2\)"),
        (torch.zeros(1, 3, 2), 4, (9, 5), "levels are integers: 0 full resolution, 1 half"),
        (torch.full((1, 3, 2), -2), 4, (9, 5), r"or SKIP \(-1\)"),
        (torch.tensor([[[1, 1], [1, 0]]]), 4, (8, 8), "level-1 tile must cover an aligned square of 2x2"),
        (torch.tensor([[[0, 1, 1, 0], [0, 1, 1, 0]]]), 4, (8, 16), "an aligned square of 2x2 cells"),
        (torch.full((1, 4, 4), 2).index_fill(2, torch.tensor([3]), 0), 4, (16, 16), "level-2 .* 4x4 cells"),
        (torch.full((1, 8, 8), 3).index_fill(2, torch.tensor([7]), 0), 4, (32, 32), "level-3 .* 8x8 cells"),
    ],
)
def test_what_is_no_plan_is_refused(levels: Tensor, tile: int, size: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan(levels, tile, size)


def test_a_coarse_tile_may_hang_over_the_edge() -> None:
    assert len(Plan(torch.tensor([[[1, 1, 1]]]), 8, (3, 17)).layout) == 2


@given(size=sizes(tile=8), level=st.integers(0, 4), images=st.integers(1, 3))
def test_uniform_has_one_tile_for_every_square(size: tuple[int, int], level: int, images: int) -> None:
    plan = Plan.uniform(images, size, 8, level)
    assert (plan.levels == level).all()
    assert plan.tiles.tolist() == [math.prod(-(-side // (8 << level)) for side in size)] * images


def test_from_blocks_spreads_a_decision_over_the_cells_of_a_block() -> None:
    plan = Plan.from_blocks(torch.tensor([[[0, 1]]]), block=16, tile=8, size=(13, 29))
    assert plan.levels.tolist() == [[[0, 0, 1, 1], [0, 0, 1, 1]]]


def test_from_blocks_cuts_what_lies_outside() -> None:
    plan = Plan.from_blocks(torch.tensor([[[0, 1]]]), block=16, tile=8, size=(8, 24))
    assert plan.levels.tolist() == [[[0, 0, 1]]]


def test_from_blocks_needs_whole_tiles() -> None:
    with pytest.raises(ValueError, match="block is 12 px and tile 8; a block must hold whole tiles"):
        Plan.from_blocks(torch.zeros(1, 1, 1), block=12, tile=8, size=(8, 8))


def test_a_decision_comes_to_the_cpu_once_and_nothing_later_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = []
    monkeypatch.setattr(Tensor, "cpu", lambda x: moved.append(x.clone()) or moved[-1])
    plan = Plan.uniform(1, (8, 8), 4)
    assert len(moved) == 1 and plan.levels is moved[0]
    assert float(plan.work) == 1 and len(plan.layout) == 4 and plan.layout.inside(4) is None
    assert len(moved) == 1


def test_a_layout_elsewhere_is_refused() -> None:
    layout = Plan.uniform(1, (8, 8), 4).layout
    with pytest.raises(ValueError, match="on meta; layouts live on the CPU"):
        replace(layout, owner=layout.owner.to("meta"))


def test_the_smallest_plan_has_one_cell_of_one_pixel() -> None:
    plan = Plan(torch.tensor([[[0]]]), 1, (1, 1))
    assert plan.work.tolist() == [1.0] and len(plan.layout) == 1
    assert Plan(torch.tensor([[[SKIP]]]), 1, (1, 1)).layout.owner.tolist() == [[[-1]]]


def test_the_coarsest_level_is_accepted_and_none_beyond() -> None:
    assert Plan.uniform(1, (9, 9), 4, MOST_LEVEL).tiles.tolist() == [1]
    said = error_of(lambda: Plan.uniform(1, (9, 9), 4, MOST_LEVEL + 1))
    assert said == f"a level is {MOST_LEVEL + 1}; give levels up to {MOST_LEVEL}"


def test_refusals_say_what_to_do_to_their_end() -> None:
    for levels in (torch.zeros(1, 2, 2), torch.full((1, 2, 2), -2), torch.zeros(0, 2, 2).long()):
        said = "levels are integers: 0 full resolution, 1 half, ..., or SKIP (-1)"
        assert error_of(lambda levels=levels: Plan(levels, 4, (8, 8))) == said
    assert error_of(lambda: Plan(torch.tensor([[[1, 1], [1, 0]]]), 4, (8, 8))) == (
        "a level-1 tile must cover an aligned square of 2x2 cells; "
        "Plan.from_scores and Plan.from_blocks make valid plans"
    )


def test_levels_are_bytes_and_cells_are_at_full_resolution_unless_told() -> None:
    plan = Plan.uniform(2, (8, 12), 4)
    assert plan.levels.dtype == torch.int8 and plan.levels.eq(0).all()
    blocks = Plan.from_blocks(torch.tensor([[[0, 1]]]), 16, 8, (16, 32))
    assert blocks.levels.dtype == torch.int8 and blocks.tiles.tolist() == [5]


def test_images_without_tiles_count_none() -> None:
    plan = Plan(torch.tensor([[[0, 0]], [[SKIP, 0]], [[SKIP, SKIP]]]), 4, (4, 8))
    assert plan.tiles.tolist() == [2, 1, 0]
    assert plan.work.tolist() == [1.0, 0.5, 0.0]
    assert plan.layout.computed == 3


def test_shares_are_exact_beyond_single_precision() -> None:
    levels = torch.zeros(1, 1, 3)
    assert Plan(levels.long(), 4, (4, 12)).share(1) == 0
    levels[0, 0, 0] = SKIP
    assert Plan(levels.long(), 4, (4, 12)).share(SKIP) == 1 / 3


@given(source=sources())
def test_tiles_in_which_no_cell_is_wanted_are_left_out(source: Random) -> None:
    size = source.randint(1, 36), source.randint(1, 36)
    plan = random_plan(source, source.randint(1, 2), size, 4, source.randint(0, 3), source.choice([0.0, 0.3]))
    draw = torch.Generator().manual_seed(source.randint(0, 2**30))
    wanted = torch.rand(plan.levels.shape, generator=draw) < source.choice([0.03, 0.3])
    before, levels = wanted.clone(), plan.levels.clone()
    found = plan.only(wanted)
    expected = torch.full_like(levels, SKIP)
    for image, level, row, column in zip(
        *(x.tolist() for x in (plan.layout.image, plan.layout.level, plan.layout.row, plan.layout.column)),
        strict=True,
    ):
        square = image, slice(row, row + 2**level), slice(column, column + 2**level)
        if wanted[square].any():
            expected[square] = level
    assert torch.equal(found.levels, expected)
    assert (found.tile, found.size) == (plan.tile, plan.size)
    assert torch.equal(wanted, before) and torch.equal(plan.levels, levels)


def test_after_several_passes_a_cell_is_from_the_last_that_computed_it() -> None:
    first, second, third = (
        Plan(torch.tensor([levels]), 4, (8, 8))
        for levels in ([[1, 1], [1, 1]], [[0, SKIP], [SKIP, SKIP]], [[SKIP, SKIP], [SKIP, 0]])
    )
    assert torch.equal(overlay([first]), first.levels)
    assert overlay([first, second]).tolist() == [[[0, 1], [1, 1]]]
    assert overlay([first, second, third]).tolist() == [[[0, 1], [1, 0]]]
    assert overlay([second, third]).tolist() == [[[0, SKIP], [SKIP, 0]]]
    assert overlay([second, first]).tolist() == [[[1, 1], [1, 1]]]


def test_every_level_has_a_character() -> None:
    assert [shade(level) for level in range(SKIP, MOST_LEVEL + 1)] == [" ", "█", "▒", "░", *"·" * 5]
