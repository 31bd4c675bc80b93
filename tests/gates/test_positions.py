"""Lists of positions, beside the same arithmetic written down with maps."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch.nn import functional as F

from foveal.gates.positions import Branch, Price, Squares, border, cover, numbered, open_best, open_where
from foveal.gates.units import Layer, seen
from strategies import sources


def layers_of(source: Random) -> list[Layer]:
    kinds = source.choice([[3, 3], [1, 3, 1], [1, 5, 1], [3, 1], [1, 3, 3, 1]])
    strided, dilation = source.randrange(len(kinds) + 1), source.choice([1, 1, 2])
    layers = []
    for number, kernel in enumerate(kinds):
        stride = 2 if number == strided else 1
        layers.append(
            Layer((kernel, kernel), stride, dilation, (dilation * (kernel // 2),) * 2, 10 + number, 1)
        )
    return layers


def drawn(source: Random) -> Branch:
    layers, size = layers_of(source), (source.randint(1, 30), source.randint(1, 30))
    return Branch.on(size, tuple(layers), tuple(source.uniform(0.01, 0.3) for _ in layers))


def masks_of(mask: torch.Tensor, branch: Branch) -> list[torch.Tensor]:
    found = [mask[None].float()]
    for layer, size in zip(reversed(branch.layers[1:]), reversed(branch.sizes[:-1]), strict=True):
        found.insert(0, seen(found[0], layer, size))
    return [each[0] > 0 for each in found]


@settings(max_examples=100)
@given(source=sources())
def test_every_layer_is_computed_where_the_next_one_looks(source: Random) -> None:
    branch = drawn(source)
    sizes, shares = branch.sizes, branch.shares
    mask = torch.rand(sizes[-1], generator=torch.Generator().manual_seed(source.randint(0, 999))) < 0.2
    choice = open_where(mask.numpy(), branch)
    expected = masks_of(mask, branch)
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(choice.masks, expected, strict=True))
    work = sum(s * float(m.double().mean()) for s, m in zip(shares, expected, strict=True))
    assert choice.work == pytest.approx(work, abs=1e-9)


def test_what_windows_see_is_what_changes_their_result() -> None:
    layer = Layer((3, 3), 2, 2, (2, 2), 1, 1)
    mask = torch.zeros(1, 5, 6)
    mask[0, 1, 2] = 1
    x = torch.zeros(1, 1, 9, 11, requires_grad=True)
    y = F.conv2d(x, torch.ones(1, 1, 3, 3), stride=2, padding=2, dilation=2)
    y[0, 0, 1, 2].backward()
    assert x.grad is not None and torch.equal(seen(mask, layer, (9, 11))[0] > 0, x.grad[0, 0] > 0)


@settings(max_examples=100)
@given(source=sources())
def test_the_highest_are_open_as_far_as_the_work_goes(source: Random) -> None:
    branch = drawn(source)
    sizes, shares = branch.sizes, branch.shares
    torch.manual_seed(source.randint(0, 999))
    side, allowed = source.choice([1, 1, 2, 4]), source.uniform(0, sum(shares))
    rows, columns = (-(-n // side) for n in sizes[-1])
    coarse = torch.randn(rows, columns).mul(source.choice([1, 3])).round(decimals=source.choice([0, 6]))
    scores = coarse.repeat_interleave(side, 0).repeat_interleave(side, 1)[: sizes[-1][0], : sizes[-1][1]]
    choice = open_best(scores.numpy(), side, branch, allowed)
    order = torch.argsort(coarse.flatten(), descending=True, stable=True)
    best = open_where(np.zeros(sizes[-1], bool), branch)
    for count in range(1, len(order) + 1):
        small = torch.zeros(rows * columns, dtype=torch.bool)
        small[order[:count]] = True
        small = small.view(rows, columns).repeat_interleave(side, 0).repeat_interleave(side, 1)
        mask = small[: sizes[-1][0], : sizes[-1][1]].numpy()
        if (more := open_where(mask, branch)).work > allowed + 1e-9:
            break
        best = more
    assert choice.work == pytest.approx(best.work, abs=1e-9) and choice.work <= allowed + 1e-9
    assert all(np.array_equal(a, b) for a, b in zip(choice.masks, best.masks, strict=True))
    few = open_best(scores.numpy(), side, branch, allowed, 1)
    assert few.masks[-1].sum() <= side**2 and few.work <= choice.work


@settings(max_examples=100)
@given(source=sources())
def test_squares_read_what_their_windows_see(source: Random) -> None:
    torch.manual_seed(source.randint(0, 999))
    layer, size = layers_of(source)[0], (source.randint(1, 20), source.randint(1, 20))
    known = torch.rand(size) < 0.8
    where = torch.full(size, -1, dtype=torch.int32)
    where[known] = torch.randperm(int(known.sum())).int()
    rows = torch.randn(max(1, int(known.sum())), 3, dtype=torch.float64)
    out = Branch.on(size, (layer,), (1.0,)).sizes[0]
    mask = torch.rand(out) < 0.3
    side = source.choice([1, 2, 4])
    wide = F.pad(mask[None].float(), (0, -out[1] % side, 0, -out[0] % side))
    squares = Squares.at((F.max_pool2d(wide, side)[0] > 0).numpy(), side)
    index = squares.patches(border(where.numpy(), layer), layer)
    weight = torch.randn(2, 3, *layer.kernel, dtype=torch.float64)
    full = torch.zeros(3, *size, dtype=torch.float64)
    full[:, known] = rows[where[known].long()].t()
    wide = F.pad(full[None], (layer.padding[1], 99, layer.padding[0], 99))
    expected = F.conv2d(wide, weight, None, layer.stride, 0, layer.dilation)[0]
    gathered = torch.cat([rows, torch.zeros(1, 3)])[index.long()].permute(0, 3, 1, 2)
    found = (
        F.conv2d(gathered, weight, None, layer.stride, 0, layer.dilation).permute(0, 2, 3, 1).reshape(-1, 2)
    )
    number = torch.from_numpy(numbered([squares], out))
    assert bool((number[mask] >= 0).all())
    torch.testing.assert_close(found[number[mask].long()].t(), expected[:, : out[0], : out[1]][:, mask])


@settings(max_examples=100)
@given(source=sources())
def test_a_cover_has_every_sample_once_and_is_no_dearer_than_one_side(source: Random) -> None:
    size, reading = (source.randint(1, 25), source.randint(1, 25)), source.choice([0.0, 30.0])
    prices = {1: Price(9.0, 9 * reading), 2: Price(18.0, 16 * reading), 4: Price(56.0, 36 * reading)}
    mask = np.random.default_rng(source.randint(0, 999)).random(size) < source.choice([0.0, 0.1, 0.5, 1.0])
    found = cover(mask, prices)
    where = numbered(found, size)
    assert bool((where[mask] >= 0).all())
    assert sum(squares.samples for squares in found) > int(where.max(initial=-1))
    inside = where[where >= 0]
    assert len(np.unique(inside)) == len(inside)
    price = sum(prices[squares.side].of(len(squares.rows)) for squares in found)
    for side in (1, 4):
        wide = np.pad(mask, [(0, -n % side) for n in size])
        cells = wide.reshape(wide.shape[0] // side, side, -1, side).any(axis=(1, 3))
        assert price <= 1.2 * prices[side].of(int(cells.sum())) + 1e-3  # a large cover is not compared
    alone = cover(mask, {1: prices[1]})
    assert [squares.side for squares in alone] == ([1] if mask.any() else [])
    assert not alone or np.array_equal(numbered(alone, size) >= 0, mask)


def test_few_squares_do_not_pay_for_weights_of_their_own() -> None:
    mask = np.zeros((40, 40), bool)
    mask[:20] = True
    mask[30, 30] = True
    free, dear = ({1: Price(9.0, r * 9), 2: Price(19.0, r * 16), 4: Price(59.0, r * 36)} for r in (0.0, 30.0))
    assert [squares.side for squares in cover(mask, free)] == [4, 1]
    assert [squares.side for squares in cover(mask, dear)] == [4]


def test_scores_of_every_kind_are_ordered() -> None:
    branch = Branch.on((2, 3), (Layer((1, 1), 1, 1, (0, 0), 1, 1),), (1.0,))
    scores = np.array([[-np.inf, -2.5, -1e-30], [0.0, 1e-30, 7.0]], np.float32)
    opened = [open_best(scores, 1, branch, k / 6).masks[0] for k in range(7)]
    for less, more in pairwise(opened):
        added = more & ~less
        assert added.sum() == 1 and (not less.any() or scores[added][0] <= scores[less].min())
