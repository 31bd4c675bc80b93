"""What every rule for tiles must keep, for a function of maps alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import torch
from torch import Tensor

from foveal.geometry.plan import Plan
from foveal.ops import compose_tiles, halve
from foveal.tiles import TileTensor, split
from strategies import random_plan

Run = Callable[[Any], Any]
EXACT = 1e-10


def assert_both_laws(run: Run, x: Tensor, tile: int = 8, levels: Sequence[int] = (0, 1, 2)) -> None:
    """All tiles at a level give what the function gives of the reduced map, shapes on the way included.

    Its result is a map, or a plain tensor of the images.
    """
    for level in levels:
        expected = run(halve(x, level) if level else x)
        found = run(split(x, Plan.uniform(len(x), tuple(x.shape[2:]), tile, level)))
        assert tuple(found.shape) == tuple(expected.shape), level
        if isinstance(found, TileTensor):
            found = compose_tiles(found.tiles, found.layout, level)
        torch.testing.assert_close(found, expected, rtol=EXACT, atol=EXACT)


def assert_runs_on_mixed_plans(run: Run, x: Tensor, source: Random, tile: int = 8, tries: int = 2) -> None:
    """Under random plans the result is a finite map of the images' size, and each image is by itself."""
    for _ in range(tries):
        plan = random_plan(source, len(x), tuple(x.shape[2:]), tile, 2)
        out = run(split(x, plan))
        found = out.dense() if isinstance(out, TileTensor) else out
        assert found.isfinite().all()
        if len({*plan.layout.finest}) > 1:
            continue
        alone = [
            run(split(x[n : n + 1], Plan(plan.levels[n : n + 1], tile, plan.size))) for n in range(len(x))
        ]
        alone = torch.cat([y.dense() if isinstance(y, TileTensor) else y for y in alone])
        torch.testing.assert_close(found, alone, rtol=EXACT, atol=EXACT)


def shapes(source: Random, tile: int = 8) -> tuple[int, int]:
    """Ragged sizes of up to four tiles [px]."""
    return source.randint(1, 4 * tile), source.randint(1, 4 * tile)


def random_map(size: tuple[int, int], images: int = 2, channels: int = 4) -> Tensor:
    """Random images [N, C, H, W], double precision."""
    return torch.randn(images, channels, *size, dtype=torch.float64)
