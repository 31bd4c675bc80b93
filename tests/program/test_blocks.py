"""Inverted residuals of a program: what lies between their convolutions is never in memory as a whole."""

from __future__ import annotations

import random
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from foreign import lively, picture
from foveal.fusion import fuse
from foveal.geometry.plan import Plan
from foveal.program import DenseRun, PlannedRun, Program
from foveal.program.compile import compile_fused
from foveal.program.run import PHASES
from foveal.tiles import split
from strategies import random_plan


class Unit(nn.Module):
    """Expands, convolves every channel by itself, and projects; beside a shortcut where it can have one."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = 3 * channels
        self.block = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(),
            nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(),
            nn.Conv2d(wide, out, 1, bias=False),
            nn.BatchNorm2d(out),
        )
        self.shortcut = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x) if self.shortcut else self.block(x)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, 2, 1)
        self.one, self.two, self.three = Unit(12, 12, 3, 1), Unit(12, 20, 5, 2), Unit(20, 36, 3, 1)
        self.head = nn.Conv2d(36, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.three(self.two(self.one(self.stem(x)))))


@cache
def fused() -> nn.Module:
    torch.manual_seed(0)
    return fuse(lively(Network()))


@cache
def program() -> Program:
    return compile_fused(fused(), ())


def off(found: np.ndarray, expected: Tensor) -> float:
    other = expected.permute(0, 2, 3, 1).numpy()
    assert found.shape == other.shape
    return float(abs(found - other).max() / abs(other).max())


@torch.no_grad()
@pytest.mark.parametrize("tile", [8, 32, 128])
@pytest.mark.parametrize("seed", range(4))
def test_plans_of_all_levels(tile: int, seed: int) -> None:
    source, size = random.Random(seed), ((250, 390), (129, 301), (384, 256), (77, 500))[seed]
    plan = random_plan(source, 2, size, tile, 3, source.choice([0, 0.3]))
    x = picture(size=size, count=2)
    run = PlannedRun(plan.levels.numpy(), tile=tile)
    found = program().run(x.numpy(), run, threads=1 + seed % 2, logits=True)
    for n in range(2):
        expected = fused()(split(x[n : n + 1], Plan(plan.levels[n : n + 1], tile, size))).dense()
        assert off(found.logits[n : n + 1], expected) < 1e-4


@torch.no_grad()
@pytest.mark.parametrize("size", [(1, 1), (31, 500), (333, 222)])
def test_dense(size: tuple[int, int]) -> None:
    x = picture(size=size, count=2)
    found = program().run(x.numpy(), DenseRun(), logits=True)
    assert off(found.logits, fused()(x)) < 1e-4


@pytest.mark.parametrize(("tile", "in_one"), [(32, True), (8, False)])
def test_a_block_is_one_step_where_tiles_are_large(tile: int, in_one: bool) -> None:
    """Small tiles would compute most of what they see for themselves. A block's time is its first step's."""
    x = picture(size=(256, 256), count=1).numpy()
    levels = np.zeros((1, 256 // tile, 256 // tile), np.int8)
    spent = program().run(x, PlannedRun(levels, tile=tile), profile=True).step_ms
    steps = [name for name in spent if name not in PHASES]
    first = steps.index("one_block_0_joined")
    assert spent[steps[first]] > 0
    assert [spent[name] == 0 for name in steps[first + 1 : first + 3]] == [in_one] * 2


def test_calibration_sees_the_wide_maps() -> None:
    """8 bits need the range of every map, so the steps run one by one for it."""
    tables = program().tables
    span = np.zeros((len(tables.maps), 2), np.float32)
    program().observe(picture(size=(96, 128), count=1).numpy(), span)
    wide = [k for k, m in enumerate(tables.maps) if m.channels in (36, 60)]
    assert len(wide) >= 5 and all(span[k, 1] > span[k, 0] for k in wide)
