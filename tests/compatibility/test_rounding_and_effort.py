"""What rounding explains is no difference, what it does not explain is one; and no check takes forever."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foreign import lively
from foveal.compatibility import NetworkReport, check
from foveal.compatibility import effort as efforts
from foveal.compatibility.rounding import rounding
from foveal.tiles import TileTensor
from foveal.tiles.tensor import RULES

SIZE = (128, 160)


class Cancelling(nn.Module):
    """Takes nearly the same from what it computes: single precision keeps few bits of what is left."""

    def __init__(self, left: float, wrong: float = 0.0) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 5, 3, padding=1)
        self.near = copy.deepcopy(self.first)
        with torch.no_grad():
            self.near.weight.mul_(1 - left)
        self.left, self.wrong = left, wrong

    def forward(self, image: Tensor) -> Tensor:
        x = (self.first(image) - self.near(image)) / self.left
        return self.last(x * (1 + self.wrong) if isinstance(x, TileTensor) else x)


def tried(left: float, wrong: float = 0.0) -> NetworkReport:
    return check(Cancelling(left, wrong), SIZE)


def scaled_by(scale: Callable[[Tensor], Tensor | float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Multiply what convolutions on tiles give in single precision; in double precision they stay right."""
    right = RULES[torch.conv2d]

    def rule(func: Any, x: TileTensor, *args: Any, **kwargs: Any) -> TileTensor:
        out = right(func, x, *args, **kwargs)
        return replace(
            out, tiles=out.tiles * scale(out.tiles) if out.tiles.dtype == torch.float32 else out.tiles
        )

    monkeypatch.setitem(RULES, torch.conv2d, rule)


@pytest.fixture
def other_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let convolutions on tiles err in their last bits, as sums in another order do."""
    scaled_by(lambda x: 1 + 2e-7 * (2 * torch.rand_like(x) - 1), monkeypatch)


@pytest.mark.usefixtures("other_sums")
def test_rounding_is_no_difference() -> None:
    report = tried(1e-4)
    assert report.equal
    assert not any(c.near for c in report.comparisons), "or nothing is tried here"
    assert all(c.difference <= c.rounding for c in report.comparisons)
    assert "equals the dense network but for rounding, and in double precision to the last bits" in str(
        report
    )


@pytest.mark.usefixtures("other_sums")
def test_rounding_is_no_difference_under_mixed_levels() -> None:
    report = tried(1e-5)
    assert report.equal
    assert all(1e-3 * run.scale < run.difference <= run.rounding for run in report.mixed)


@pytest.mark.parametrize("left", [1.0, 1e-2])
def test_what_is_wrong_in_both_precisions_is_wrong(left: float) -> None:
    report = tried(left, wrong=3e-4)
    assert not report.equal
    assert {c.rounding for c in report.comparisons} == {0.0}
    assert "does NOT equal the dense network (" in str(report)


def test_what_is_wrong_in_single_precision_alone_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of kernels, which compute in single precision: double precision says that the rules are right."""
    scaled_by(lambda x: 1 + 3e-4, monkeypatch)
    report = tried(1.0)
    assert not report.equal
    assert all(0 < c.rounding < c.difference for c in report.comparisons)


def test_maps_of_other_shapes_are_not_explained() -> None:
    x = torch.rand(1, 2, 4, 4, dtype=torch.float64)
    assert rounding(x.float(), x, x) > 0
    assert rounding(x.float(), x, x[..., :3]) == 0


def test_a_network_that_rounds_much_is_equal(torchvision: Any) -> None:
    """LRASPP with random weights loses 4 of its 7 digits."""
    made = torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
    report = check(lively(made), (128, 128))
    assert report.equal
    assert not report.comparisons[0].near


def test_a_network_that_takes_long_is_compared_less(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Conv2d(3, 5, 3, padding=1)
    whole = check(network, (128, 128))
    assert not whole.notes and len(whole.mixed) == 4
    macs = 128 * 128 * 5 * 3 * 9

    def within(runs: float) -> NetworkReport:
        monkeypatch.setattr(efforts, "EFFORT", runs * macs)
        return check(network, (128, 128))

    least = within(0)
    assert {c.size for c in least.comparisons} == {c.size for c in whole.comparisons}, "two sizes, always"
    assert least.equal and not least.mixed
    assert "4 of the comparisons were left out, since the network takes 0 GMACs for 128x128 px" in str(least)
    some = within(11)
    assert [run.size for run in some.mixed] == [(133, 141)], "the smaller one first"
    assert len(within(20).mixed) == 2 and not within(40).notes


def test_what_is_left_out_does_not_depend_on_the_machine() -> None:
    left = efforts.Effort(10**11, (256, 256))
    assert [left.spend((256, 256), 4.4) for _ in range(5)] == [True, True, False, False, False]
    assert left.spend((128, 256), 0.5) and left.spend((512, 512), 9, least=True)
    assert not left.spend((1, 1), 1), "what had to run is counted"
    assert "4 of the comparisons were left out, since the network takes 100 GMACs" in left.notes[0]
