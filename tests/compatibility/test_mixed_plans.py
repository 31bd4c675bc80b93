"""Mixed plans are judged by their values: what the levels alone do not show is found."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.compatibility import check
from foveal.compatibility.lockstep import NotJudged, judge
from foveal.compatibility.survey import with_dense
from foveal.geometry.plan import Plan
from foveal.models.swiftnet import PyramidPooling
from foveal.ops import halve
from foveal.tiles import TileTensor, split
from foveal.tiles.tensor import RULES
from strategies import random_plan

TILE = 16


def assert_judged(network: nn.Module, dense: tuple[str, ...] = (), size: tuple[int, int] = (96, 133)) -> None:
    """Tiles give what one dense network a level gives, to machine precision."""
    network = network.double().eval()
    image, source, seen = torch.rand(1, 3, *size, dtype=torch.float64), Random(3), set()
    while not seen >= {(0, 1), (0, 1, 2)}:
        plan = random_plan(source, 1, size, TILE, source.choice((1, 2)))
        levels = tuple(sorted({*plan.levels.flatten().tolist()}))
        if levels in seen or len(levels) == 1 or -1 in levels:
            continue
        seen.add(levels)
        with torch.no_grad():
            found = with_dense(network, dense)(split(image, plan)).dense()
            right = judge(network, dense, {k: halve(image, k) for k in range(3)}, plan)
        torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-12)


def between(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), *layers, nn.Conv2d(8, 4, 3, padding=1))


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function, self.mix = function, nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def as_tokens(self: Apply, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return self.mix(x.flatten(2).transpose(1, 2)).transpose(1, 2).view(n, c, h, w).relu_()


def weighed(self: Apply, x: Tensor) -> Tensor:
    return x * x.mean((2, 3), keepdim=True).sigmoid() + F.adaptive_avg_pool2d(x, 1)


def pyramid(self: Apply, x: Tensor) -> Tensor:
    grid = F.adaptive_avg_pool2d(x, (2, 3))
    return x + F.interpolate(grid, size=x.shape[2:], mode="bilinear")


def resized(self: Apply, x: Tensor) -> Tensor:
    small = F.max_pool2d(x, 3, 2, 1)
    large = F.interpolate(small, size=x.shape[2:], mode="bilinear", align_corners=True)
    return large + F.interpolate(small, size=x.shape[2:])


@pytest.mark.parametrize(
    "network",
    [
        between(
            nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1), nn.ConvTranspose2d(8, 8, 2, 2)
        ),
        between(nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 3, 2, 1), nn.Upsample(scale_factor=2, mode="bilinear")),
        between(nn.InstanceNorm2d(8, affine=True), nn.AvgPool2d(3, 1, 1, count_include_pad=False)),
        between(nn.PixelShuffle(2), nn.Conv2d(2, 2, 5, padding=2), nn.PixelUnshuffle(2)),
        *(between(Apply(f)) for f in (as_tokens, weighed, pyramid, resized)),
    ],
)
def test_tiles_are_right_to_the_last_bits(network: nn.Module) -> None:
    assert_judged(network, size=(96, 144))


@pytest.mark.parametrize("size", [(96, 128), (99, 133)])
def test_dense_modules_are_right(size: tuple[int, int]) -> None:
    assert_judged(between(nn.ReLU(), PyramidPooling(8, 8, 9)), ("2",), size)


def wrong(name: str) -> Any:
    """Return a rule that is right wherever all tiles have one level, and forgets the borders elsewhere."""
    right = RULES[torch.conv2d]

    def rule(func: Any, x: TileTensor, weight: Tensor, *args: Any, **kwargs: Any) -> TileTensor:
        if len(x.layout.levels) > 1 and tuple(weight.shape[2:]) == (3, 3):
            bordered = replace(x, layout=x.layout.with_borders(name))
            return replace(right(func, bordered, weight, *args, **kwargs), layout=x.layout)
        return right(func, x, weight, *args, **kwargs)

    return rule


@pytest.mark.parametrize("borders", ["zero", "strided"])
def test_a_rule_that_is_wrong_between_levels_is_found(borders: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The levels alone are equal, logits are finite, and images are kept apart: only their values tell."""
    monkeypatch.setitem(RULES, torch.conv2d, wrong(borders))
    report = check(between(nn.ReLU()), (128, 128))
    assert all(c.equal for c in report.comparisons)
    assert all(run.finite and run.influence == 0 for run in report.mixed)
    assert {run.size for run in report.mixed if not run.right} == {run.size for run in report.mixed}
    assert not report.equal
    assert "levels mixed: NOT what one dense network a level gives" in str(report)


def test_both_sizes_are_judged_and_one_is_ragged() -> None:
    report = check(between(nn.ReLU()), (128, 128))
    assert [run.size for run in report.mixed] == [(128, 256)] * 2 + [(133, 141)] * 2
    assert all(run.difference is not None and not run.unjudged for run in report.mixed)
    assert report.judged and str(report).startswith("Sequential runs on tiles\n")
    assert "4 random plans of mixed levels: finite, images kept apart, 4 equal one dense network" in str(
        report
    )


class Fickle(nn.Module):
    """Does something else on small images."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.shape[2] > 100 else (x + 1) * 2 - 2


def test_a_network_that_cannot_be_judged_is_told() -> None:
    report = check(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Fickle()), (128, 160))
    assert report.equal  # it computes the same
    assert not report.judged and not any(run.right or run.wrong for run in report.mixed)
    assert str(report).startswith(
        "Sequential runs on tiles, right at every level alone; not judged where levels are mixed\n"
    )
    assert any("it calls different functions at different levels" in run.unjudged for run in report.mixed)
    assert "values of mixed levels are not compared at 128x160 px: it calls different" in str(report)
    plan = Plan(torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 1]]], dtype=torch.int8), 32, (64, 128))
    with pytest.raises(NotJudged, match=r"it fails at level \d: .*3 channels"):
        judge(nn.Conv2d(3, 4, 1), (), {k: torch.rand(1, 5, 64 >> k, 128 >> k) for k in range(2)}, plan)


def test_the_network_is_left_as_it_is() -> None:
    network = between(PyramidPooling(8, 8, 9))
    check(network, (64, 96))
    assert not any("forward" in vars(module) for module in network.modules())


class Picky(nn.Module):
    """Refuses sides by default, as networks of a library do that can be told to let them be."""

    requires_divisible_input_shape = True

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.requires_divisible_input_shape and x.shape[2] % 32:
            raise RuntimeError(f"{x.shape[2]} is no multiple of 32")
        return self.layers(x)
