"""Tiles at another number of samples: both backends, and PyTorch's own resizing."""

from __future__ import annotations

from random import Random

import pytest
import torch
from hypothesis import given, settings
from torch.nn import functional as F

from foveal.geometry.layout import Layout
from foveal.geometry.plan import Plan
from foveal.kernels.build import OBSERVER
from foveal.ops import Resampling, compose_tiles, cut_tiles, resample
from foveal.ops.resample.spec import MODES
from samples import assert_same
from strategies import layouts, random_tiles, sources


def random_resampling(source: Random, tile: int) -> Resampling:
    sides = [side for side in range(1, tile + 1) if tile % side == 0]
    mode = source.choice(MODES)
    corners = mode == "bilinear" and source.random() < 0.5
    return Resampling(source.choice(sides), mode, corners)


@settings(max_examples=60)
@given(layout=layouts(), source=sources())
def test_backends_agree(layout: Layout, source: Random) -> None:
    side = source.choice([side for side in range(1, layout.tile + 1) if layout.tile % side == 0])
    tiles, kept = random_tiles(layout, side)
    how = random_resampling(source, layout.tile)
    inputs = [tiles] + ([] if kept is None else [kept])
    found, expected = (resample(tiles, layout, how, kept, backend=b) for b in ("torch", "reference"))
    inside = layout.inside(how.side)
    mask = torch.ones(len(tiles), 1, how.side, how.side) if inside is None else inside[:, None]
    assert_same(found * mask, expected * mask, inputs)


@settings(max_examples=40)
@given(source=sources())
def test_one_level_is_resized_as_pytorch_does(source: Random) -> None:
    size = source.randint(1, 40), source.randint(1, 40)
    layout, how = Plan.uniform(2, size, 8).layout, random_resampling(source, 8)
    side = source.choice([1, 2, 4, 8])
    x = torch.randn(2, 3, *layout.extent(side, 0), dtype=torch.float64)
    found = compose_tiles(resample(cut_tiles(x, layout, side), layout, how), layout)
    corners = how.align_corners if how.mode == "bilinear" else None
    expected = F.interpolate(x, layout.extent(how.side, 0), mode=how.mode, align_corners=corners)
    torch.testing.assert_close(found, expected)


def test_bilinear_resampling_is_counted() -> None:
    counted: list[tuple[str, int]] = []
    layout = Plan.uniform(1, (16, 16), 8).layout
    token = OBSERVER.set(lambda kind, macs: counted.append((kind, macs)))
    resample(torch.randn(4, 3, 4, 4), layout, Resampling(8))
    OBSERVER.reset(token)
    assert counted == [("interpolation", 4 * 4 * 3 * 64)]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (Resampling(3), "tiles of 3 samples a side are wanted"),
        (Resampling(4, "cubic"), "no resampling 'cubic'"),
    ],
)
def test_what_cannot_be_is_refused(how: Resampling, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resample(torch.randn(4, 3, 4, 4), Plan.uniform(1, (16, 16), 8).layout, how)
