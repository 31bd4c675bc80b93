"""Plans of native code equal those of Python exactly, ties included."""

from __future__ import annotations

import ctypes
import random

import numpy as np
import pytest
import torch

from foveal.geometry import planner
from foveal.geometry.plan import Plan, grid
from foveal.policies.budgeted import per_cell
from foveal.program.spec import native

CASES = range(60)


def doubles(x: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(x.double().numpy())


def native_choice(gains, costs, budget: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Rates and choice of a forest, max_level map first."""
    depth = len(gains)
    rows, columns = ((ctypes.c_int32 * depth)(*(g.shape[axis] for g in gains)) for axis in (0, 1))
    flat = [np.concatenate([doubles(x).reshape(-1) for x in maps]) for maps in (gains, costs)]
    rates, chosen = np.empty_like(flat[0]), np.empty(len(flat[0]), np.uint8)
    run = native().foveal_program_choose
    run.argtypes = [ctypes.c_int32, *[ctypes.c_void_p] * 4, ctypes.c_double, *[ctypes.c_void_p] * 2]
    status = run(
        depth,
        ctypes.addressof(rows),
        ctypes.addressof(columns),
        flat[0].ctypes.data,
        flat[1].ctypes.data,
        budget,
        rates.ctypes.data,
        chosen.ctypes.data,
    )
    assert status == 0
    ends = np.cumsum([g.numel() for g in gains])[:-1]
    shapes = [tuple(g.shape) for g in gains]
    both = ([*zip(np.split(x, ends), shapes, strict=True)] for x in (rates, chosen))
    return tuple([part.reshape(shape) for part, shape in pairs] for pairs in both)


@pytest.mark.parametrize("seed", CASES)
def test_rates_and_choices(seed: int) -> None:
    source, draw = random.Random(seed), torch.Generator().manual_seed(seed)
    size = source.randint(1, 21), source.randint(1, 21)
    shapes = [grid(size, 2**k) for k in range(source.randint(1, 4))][::-1]
    gains = [torch.randn(*s, generator=draw, dtype=torch.float64) + 0.3 for s in shapes]
    if seed % 3 == 0:  # many ties
        gains = [(2 * g).round() for g in gains]
    costs = [torch.randint(0, 4, s, generator=draw).double() for s in shapes]
    budget = source.choice([0.0, 1.0, source.uniform(0, float(sum(c.sum() for c in costs)))])
    expected = planner.rates(gains, costs)
    rates, chosen = native_choice(gains, costs, budget)
    for found, wanted in zip(rates, expected, strict=True):
        np.testing.assert_array_equal(found, wanted.numpy())
    for found, wanted in zip(chosen, planner.choose(expected, costs, budget), strict=True):
        np.testing.assert_array_equal(found, wanted.numpy())


@pytest.mark.parametrize("seed", CASES)
def test_blocks_from_densities(seed: int) -> None:
    """From a score per sample to levels, as SegBlocks decides."""
    source, draw = random.Random(seed), torch.Generator().manual_seed(seed)
    size = source.randint(20, 400), source.randint(20, 400)
    tile, stride = source.choice([16, 24, 32, 48]), 4
    max_level, look = source.randint(1, 3), source.randint(0, 2)
    rows, columns = (-(-n // (stride << look)) for n in size)
    density = torch.rand(1, rows, columns, generator=draw)
    if seed % 4 == 0:
        density = (4 * density).round()
    cells = per_cell(density, size, tile)
    found_cells = np.empty(cells.shape, np.float32)
    levels = np.empty(cells.shape, np.int8)
    cheapest = float(Plan.uniform(1, size, tile, max_level).work)
    budget = cheapest + source.random() * max(0.0, 0.99 - cheapest)
    if not 0 < budget < 1:
        return
    run = native().foveal_program_blocks
    run.argtypes = [ctypes.c_void_p, *[ctypes.c_int32] * 6, ctypes.c_double, *[ctypes.c_void_p] * 2]
    given = doubles(density).astype(np.float32)
    status = run(
        given.ctypes.data,
        *(rows, columns, *size, tile, max_level),
        budget,
        found_cells.ctypes.data,
        levels.ctypes.data,
    )
    assert status == 0
    np.testing.assert_array_equal(found_cells, cells.numpy())
    expected = Plan.from_scores(cells, tile, size, budget, max_level)
    np.testing.assert_array_equal(levels, expected.levels.numpy())
