from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from foveal.geometry.plan import SKIP, Plan, check_budget, grid
from strategies import plans, sizes, sources

SIZE = (64, 96)


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


class Request(NamedTuple):
    """Random arguments of `Plan.from_scores`, which the cheapest plan keeps."""

    scores: Tensor
    tile: int
    size: tuple[int, int]
    budget: float
    coarsest: int

    @property
    def capacity(self) -> float:
        return self.budget * self.size[0] * self.size[1] / self.tile**2

    def plan(self, **changes: Any) -> Plan:
        return Plan.from_scores(*self._replace(**changes))

    def shared(self, **changes: Any) -> Plan:
        return Plan.shared(*self._replace(**changes))


@st.composite
def requests(draw: st.DrawFn) -> Request:
    source = draw(sources())
    tile, coarsest, images = source.choice([4, 16]), source.randint(0, 3), source.randint(1, 3)
    size = source.randint(1, 9 * tile), source.randint(1, 9 * tile)
    budget = source.choice([1.0, source.uniform(0.01, 1)])
    while cheapest(size, tile, coarsest) > budget * size[0] * size[1] / tile**2 + 1:
        coarsest += 1
    shape = (images, *grid(size, tile))
    if source.random() < 0.4:
        shape = (max(coarsest, 1), *shape)
    generator = torch.Generator().manual_seed(source.randint(0, 2**30))
    scores = torch.rand(shape, generator=generator)
    scores = (scores * 3).round() if source.random() < 0.4 else scores
    return Request(scores, tile, size, budget, coarsest)


def cheapest(size: tuple[int, int], tile: int, coarsest: int) -> int:
    return math.prod(-(-side // (tile << coarsest)) for side in size)


@settings(max_examples=150)
@given(request=requests())
def test_the_budget_is_exceeded_by_at_most_one_tile(request: Request) -> None:
    plan = request.plan()
    whole = bool((plan.levels == 0).all())  # budget 1 means everything, padding at the edges included
    assert plan.tiles.max() <= request.capacity + 1 + 1e-9 or (whole and request.budget == 1)
    assert int(plan.levels.max()) <= request.coarsest


@settings(max_examples=150)
@given(request=requests())
def test_another_split_into_four_would_not_fit(request: Request) -> None:
    plan = request.plan()
    for tiles, levels in zip(plan.tiles, plan.levels, strict=True):
        assert (levels == 0).all() or tiles + 3 > request.capacity + 1 - 1e-9


@settings(max_examples=150)
@given(request=requests(), more=st.floats(1, 3))
def test_plans_of_growing_budgets_are_nested(request: Request, more: float) -> None:
    larger = request.plan(budget=min(1.0, request.budget * more))
    assert (larger.levels <= request.plan().levels).all()


@settings(max_examples=60)
@given(request=requests())
def test_an_image_gets_the_plan_that_it_gets_alone(request: Request) -> None:
    together = request.plan()
    assert torch.equal(together.levels, request.plan().levels)
    axis = request.scores.ndim - 3
    for n, levels in enumerate(together.levels):
        alone = request.plan(scores=request.scores.narrow(axis, n, 1))
        assert torch.equal(alone.levels[0], levels)


def quadtrees(shape: tuple[int, int], coarsest: int) -> Tensor:
    """All levels [P, *shape] that one image can have from `coarsest` on, by trying every split."""
    squares = [torch.zeros(1, 1, dtype=torch.long)]
    for level in range(1, coarsest + 1):
        split = [torch.cat([torch.cat(q[:2], 1), torch.cat(q[2:], 1)]) for q in product(squares, repeat=4)]
        squares = [torch.full_like(split[0], level), *split]
    rows, columns = (-(-cells >> coarsest) for cells in shape)
    found = []
    for q in product(squares, repeat=rows * columns):
        found.append(torch.cat([torch.cat(q[i * columns : (i + 1) * columns], 1) for i in range(rows)]))
    return torch.stack(found)[:, : shape[0], : shape[1]]


def gain_of(levels: Tensor, scores: Tensor) -> Tensor:
    """Gain [P] of levels [P, Gh, Gw], given the scores of every step [L, Gh, Gw] or [L, P, Gh, Gw]."""
    steps = torch.stack([levels <= k for k in range(len(scores))])
    return (steps * scores.view(len(scores), -1, *levels.shape[1:])).sum((0, 2, 3))


def corners(tiles: Tensor, gain: Tensor) -> list[tuple[int, float]]:
    """Corners of the concave hull of gain over tiles, up to the largest gain."""
    points = sorted(set(zip(tiles.tolist(), gain.tolist(), strict=True)), key=lambda p: (p[0], -p[1]))
    hull = [points[0]]
    while later := [p for p in points if p[0] > hull[-1][0] and p[1] > hull[-1][1]]:
        slope = {p: (p[1] - hull[-1][1]) / (p[0] - hull[-1][0]) for p in later}
        hull.append(max(later, key=lambda p: (slope[p], p[0])))
    return hull


def random_scores(source: Random, shape: tuple[int, ...]) -> Tensor:
    """Whole numbers, so that sums and comparisons are exact."""
    least, most = source.choice([(0, 5), (-2, 6), (0, 1)])
    generator = torch.Generator().manual_seed(source.randint(0, 2**30))
    return torch.randint(least, most + 1, shape, generator=generator).double()


CELLS = [(2, 2), (2, 3), (4, 4), (3, 4), (3, 8), (5, 3)]


@settings(max_examples=60)
@given(source=sources())
def test_at_a_corner_of_the_hull_no_plan_of_as_many_tiles_gains_more(source: Random) -> None:
    shape, coarsest = source.choice(CELLS), source.randint(1, 2)
    size = 8 * shape[0] - source.randint(0, 7), 8 * shape[1] - source.randint(0, 7)
    scores = random_scores(source, (coarsest, *shape))
    every = Plan(quadtrees(shape, coarsest), 8, size)
    for tiles, gain in corners(every.tiles, gain_of(every.levels, scores)):
        budget = (
            (tiles - 0.5) * 64 / (size[0] * size[1])
        )  # one tile more is allowed, so this is half too many
        if budget < 1:
            plan = Plan.from_scores(scores[:, None], 8, size, budget, coarsest)
            assert (int(plan.tiles), float(gain_of(plan.levels, scores))) == (tiles, gain)


@settings(max_examples=40)
@given(source=sources())
def test_at_a_corner_of_the_hull_no_shared_plan_of_as_many_tiles_gains_more(source: Random) -> None:
    shape, coarsest = source.choice(CELLS[:4]), source.randint(1, 2)
    size = 8 * shape[0], 8 * shape[1]
    scores = random_scores(source, (coarsest, 2, *shape))
    every = Plan(quadtrees(shape, coarsest), 8, size)
    first, second = (gain_of(every.levels, scores[:, n]) for n in range(2))
    tiles_of_both = (every.tiles[:, None] + every.tiles).flatten()
    for tiles, gain in corners(tiles_of_both, (first[:, None] + second).flatten()):
        budget = (tiles - 0.5) / (2 * math.prod(shape))
        if budget < 1:
            plan = Plan.shared(scores, 8, size, budget, coarsest)
            assert (int(plan.tiles.sum()), float(gain_of(plan.levels, scores).sum())) == (tiles, gain)


@settings(max_examples=150)
@given(request=requests(), more=st.floats(1, 3))
def test_a_shared_budget_holds_for_the_batch(request: Request, more: float) -> None:
    images = request.scores.shape[-3]
    capacity = images * request.capacity
    if request.budget < 1 and images * cheapest(request.size, request.tile, request.coarsest) > capacity + 1:
        with pytest.raises(ValueError, match="raise the budget"):
            request.shared()
        return
    plan = request.shared()
    whole = bool((plan.levels == 0).all())
    assert plan.tiles.sum() <= capacity + 1 + 1e-9 or (whole and request.budget == 1)
    assert whole or plan.tiles.sum() + 3 > capacity + 1 - 1e-9
    larger = request.shared(budget=min(1.0, request.budget * more))
    assert (larger.levels <= plan.levels).all()
    assert torch.equal(plan.levels, request.shared().levels)
    if images == 1:
        assert torch.equal(plan.levels, request.plan().levels)


def test_a_hard_image_gets_more_of_a_shared_budget() -> None:
    scores = torch.ones(3, 4, 4)
    scores[1] = 5
    alone = Plan.from_scores(scores, 8, (32, 32), 0.5)
    together = Plan.shared(scores, 8, (32, 32), 0.5)
    assert alone.tiles.tolist() == [7, 7, 7]
    assert together.tiles.tolist() == [4, 16, 4]


def test_an_image_without_gain_gets_nothing_of_a_shared_budget() -> None:
    scores = torch.zeros(2, 4, 4)
    scores[1] = torch.arange(16).view(4, 4)
    assert Plan.shared(scores, 8, (32, 32), 19 / 32).tiles.tolist() == [4, 16]


def test_a_step_is_worth_all_that_it_opens() -> None:
    opens, alone = torch.zeros(1, 4, 8), torch.zeros(1, 4, 8)
    opens[0, :, :4] = 1  # gains only at the last step: 16 for 15 tiles
    alone[0, :, 4:] = 0.125  # gains only at the first step: 2 for 3 tiles
    plan = Plan.from_scores(torch.stack([opens, alone]), 8, (32, 64), budget=16 / 32, coarsest=2)
    assert plan.levels[0, :, :4].eq(0).all()
    assert plan.levels[0, :, 4:].eq(2).all()


@pytest.mark.parametrize("make", [Plan.from_scores, Plan.shared])
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_scores_that_are_no_numbers_are_refused(make: Callable[..., Plan], number: float) -> None:
    scores = torch.zeros(1, 2, 2)
    scores[0, 1, 1] = number
    with pytest.raises(ValueError, match="scores hold NaN or infinity; give finite gains per cell"):
        make(scores, 8, (16, 16), 0.5)


@pytest.mark.parametrize("make", [Plan.from_scores, Plan.shared])
def test_scores_of_too_few_levels_are_refused(make: Callable[..., Plan]) -> None:
    with pytest.raises(ValueError, match="scores are for 2 levels; coarsest 3 needs 3 of them"):
        make(torch.zeros(2, 1, 8, 8), 8, (64, 64), 0.5, 3)


def test_too_small_a_shared_budget_names_the_cheapest_plan() -> None:
    with pytest.raises(ValueError, match=r"budget is 0\.1 .* everything at level 1, takes 0\.25; raise"):
        Plan.shared(torch.zeros(3, 8, 8), 8, (64, 64), budget=0.1)


def test_what_gains_most_is_refined_first() -> None:
    scores = torch.zeros(1, 8, 8)
    scores[0, 5, 2] = 1
    plan = Plan.from_scores(scores, 8, (64, 64), budget=(4 + 3 + 3 - 1) / 64, coarsest=2)
    assert plan.levels[0, 4:6, 2:4].eq(0).all()
    assert plan.levels[0, 4:, :4].eq(1).sum() == 12
    assert plan.levels[0, :4].eq(2).all()


def test_a_split_at_the_edge_that_costs_nothing_comes_first() -> None:
    plan = Plan.from_scores(torch.zeros(1, 3, 3), 8, (24, 24), budget=3 / 9, coarsest=1)
    assert plan.levels.tolist() == [[[1, 1, 1], [1, 1, 1], [1, 1, 0]]]


def test_scores_per_level_refine_each_level_by_its_own() -> None:
    scores = torch.zeros(2, 1, 4, 8)
    scores[1, 0, :, :4] = 1
    scores[0, 0, :, 4:] = 1
    plan = Plan.from_scores(scores, 8, (32, 64), budget=4 / 32, coarsest=2)
    assert plan.levels.unique(dim=2).tolist() == [[[1, 2]] * 4]


@given(source=sources())
def test_the_whole_budget_gives_everything_at_level_0_on_whole_cells(source: Random) -> None:
    size = 16 * source.randint(1, 6), 16 * source.randint(1, 6)
    plan = Plan.from_scores(torch.rand(2, *grid(size, 16)), 16, size, 1.0, source.randint(0, 3))
    assert plan.levels.eq(0).all()


def test_too_small_a_budget_names_the_cheapest_plan() -> None:
    with pytest.raises(
        ValueError,
        match=r"budget is 0\.1 .* everything at level 1, takes 0\.25; raise the budget or allow level 2",
    ):
        Plan.from_scores(torch.zeros(1, 8, 8), 8, (64, 64), budget=0.1)


@pytest.mark.parametrize("budget", [0, -0.5, 1.01, math.nan, math.inf])
def test_a_budget_that_is_no_share_is_refused(budget: float) -> None:
    with pytest.raises(ValueError, match="must be above 0 and at most 1, a share of the dense work"):
        check_budget(budget)
    with pytest.raises(ValueError, match="must be above 0 and at most 1"):
        Plan.from_scores(torch.zeros(1, 1, 1), 8, (8, 8), budget)


def test_scores_of_another_grid_are_refused() -> None:
    with pytest.raises(ValueError, match=r"needs \[N, 8, 8\]"):
        Plan.from_scores(torch.zeros(1, 4, 4), 8, (64, 64), budget=1)


def test_drawing() -> None:
    plan = Plan(torch.tensor([[[1, 1, 0, SKIP], [1, 1, 0, 0]]]), 8, (16, 32))
    assert str(plan).splitlines() == [
        "tile 8, 16x32 px   █ full 38%   ▒ half 50%     skip 12%   work 0.500",
        "▒▒▒▒██  ",
        "▒▒▒▒████",
    ]


def test_drawing_of_several_images_has_a_picture_for_each() -> None:
    text = str(Plan(torch.tensor([[[2]], [[4]]]), 8, (8, 8)))
    assert text.endswith("░ quarter 50%   · 1/16 50%   work 1.000, 1.000\n\n░░\n\n··")


@given(plan=plans(skip=True))
def test_a_saved_plan_comes_back(tmp_path_factory: pytest.TempPathFactory, plan: Plan) -> None:
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    plan.save(path)
    found = Plan.load(path)
    assert torch.equal(found.levels, plan.levels)
    assert (found.tile, found.size) == (plan.tile, plan.size)


GOOD = {"tile": 8, "size": [8, 16], "levels": [[[0, -1]]]}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '{"tile": 8',
        "\xff\xfe",
        json.dumps({"tile": 8, "size": [8, 16]}),
        json.dumps(GOOD | {"size": [8]}),
        json.dumps(GOOD | {"size": 8}),
        json.dumps(GOOD | {"size": ["a", "b"]}),
        json.dumps(GOOD | {"tile": None}),
        json.dumps(GOOD | {"tile": 0}),
        json.dumps(GOOD | {"levels": None}),
        json.dumps(GOOD | {"levels": "abc"}),
        json.dumps(GOOD | {"levels": [[[0, 1], [0]]]}),
        json.dumps(GOOD | {"levels": [[[0, 300]]]}),
        json.dumps(GOOD | {"levels": [[[0, -7]]]}),
        json.dumps(GOOD | {"levels": []}),
        json.dumps(GOOD | {"levels": [[[0, 0, 0]]]}),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"plan\.json: holds no plan \("):
        Plan.load(path)


def test_a_good_file_of_the_same_kind_is_read(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(GOOD))
    assert Plan.load(path).levels.tolist() == [[[0, -1]]]


def test_a_decision_comes_to_the_cpu_once_and_nothing_later_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = []
    monkeypatch.setattr(Tensor, "cpu", lambda x: moved.append(x) or x)
    plan = Plan.uniform(1, (8, 8), 4)
    assert len(moved) == 1
    assert float(plan.work) == 1 and len(plan.layout) == 4 and plan.layout.inside(4) is None
    assert len(moved) == 1


def test_a_layout_elsewhere_is_refused() -> None:
    layout = Plan.uniform(1, (8, 8), 4).layout
    with pytest.raises(ValueError, match="on meta; layouts live on the CPU"):
        replace(layout, owner=layout.owner.to("meta"))


def test_a_step_that_gains_nothing_is_taken_for_what_it_opens() -> None:
    nothing, much = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8)
    much[0, 0, 0] = 1.0  # only the last step gains, and only in one cell
    plan = Plan.from_scores(torch.stack([much, nothing]), 8, (64, 64), budget=0.2, coarsest=2)
    assert int(plan.levels[0, 0, 0]) == 0
    assert int(plan.levels[0, 7, 7]) == 2
