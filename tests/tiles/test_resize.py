"""Resizing between the whole strides of an image: any factor, size, corner rule and ragged side."""

from __future__ import annotations

import copy
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.nn import functional as F

from both_laws import Run, assert_both_laws, assert_runs_on_mixed_plans, random_map, shapes
from foveal.geometry.plan import Plan
from foveal.methods import CoarseToFine, CoarseToFineConfig
from foveal.tiles import run_dense, split
from foveal.tiles.extent import Extent, at_level, tile_sides
from strategies import sources

MODES: list[dict[str, Any]] = [
    {"mode": "bilinear", "align_corners": True},
    {"mode": "bilinear", "align_corners": False},
    {"mode": "nearest"},
    {"mode": "nearest-exact"},
]


def smaller(x: Any, factor: int) -> Any:
    """A map of ceil(side / factor) samples."""
    return F.max_pool2d(x, factor + 1, factor, factor // 2) if factor > 1 else x


def to_the_size_of_another(how: dict[str, Any], old: int, new: int) -> Run:
    return lambda x: F.interpolate(smaller(x, old), size=smaller(x, new).shape[2:], **how)


@settings(max_examples=25)
@given(source=sources())
@pytest.mark.parametrize("how", MODES, ids=str)
def test_sizes_as_numbers(how: dict[str, Any], source: Random) -> None:
    old, new = source.sample([1, 2, 4, 8], 2)
    x, run = random_map(shapes(source)), to_the_size_of_another(how, old, new)
    assert_both_laws(run, x)
    assert_runs_on_mixed_plans(run, x, source)


@settings(max_examples=15)
@given(source=sources())
@pytest.mark.parametrize("how", MODES, ids=str)
def test_factors(how: dict[str, Any], source: Random) -> None:
    """What hangs over the edge after upsampling by a factor is cropped, as networks do."""
    factor, again = source.choice([2, 4]), source.choice([None, True])

    def run(x: Any) -> Any:
        large = F.interpolate(
            smaller(x, factor), scale_factor=float(factor), recompute_scale_factor=again, **how
        )
        return large[:, :, : x.shape[2], : x.shape[3]]

    x = random_map(shapes(source))
    assert_both_laws(run, x)
    assert_runs_on_mixed_plans(run, x, source)


@pytest.mark.parametrize("how", MODES, ids=str)
@pytest.mark.parametrize("factor", [0.5, 0.25])
def test_downsampling_by_a_factor(factor: float, how: dict[str, Any]) -> None:
    assert_both_laws(lambda x: F.interpolate(x, scale_factor=factor, **how), random_map((32, 48)))


def test_the_sizes_of_a_ragged_unet() -> None:
    """(5, 6) to (9, 11) in an image of 132x164: no whole factor, and yet a whole stride."""
    how = {"mode": "bilinear", "align_corners": True}
    x = random_map((132, 164), 1, 2)
    assert smaller(x, 32).shape[2:] == (5, 6)
    assert smaller(x, 16).shape[2:] == (9, 11)
    for each in (how, {"mode": "nearest"}):
        assert_both_laws(to_the_size_of_another(each, 32, 16), x, 32)


def test_upsampling_modules() -> None:
    for layer in (nn.UpsamplingBilinear2d(scale_factor=4), nn.UpsamplingNearest2d(scale_factor=2)):
        assert_both_laws(lambda x, layer=layer: layer(F.avg_pool2d(x, 4)), random_map((32, 64)))


@settings(max_examples=10)
@given(source=sources())
def test_pixels_become_channels_and_come_back(source: Random) -> None:
    x = random_map((16 * source.randint(1, 3), 16 * source.randint(1, 3)))
    assert_both_laws(lambda x: F.pixel_unshuffle(x, 2), x)
    assert_both_laws(lambda x: nn.PixelShuffle(4)(nn.PixelUnshuffle(4)(x).exp()), x)


def test_pixels_of_a_ragged_map_stay() -> None:
    with pytest.raises(TypeError, match=r"pixel_unshuffle by 2 of a map of \(13, 24\)"):
        F.pixel_unshuffle(split(random_map((13, 24)), Plan.uniform(2, (13, 24), 8)), 2)
    with pytest.raises(TypeError, match="pixel_unshuffle by 2 on tiles of 3 samples"):
        F.pixel_unshuffle(split(random_map((12, 24)), Plan.uniform(2, (12, 24), 3)), 2)


# Sizes that the network takes from the shape of a map


class Up(nn.Module):
    """Resizes to sides that are given as numbers."""

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        return F.interpolate(x, (height, width), mode="bilinear", align_corners=True)


class UpToShape(nn.Module):
    def forward(self, x: Tensor, size: torch.Size) -> Tensor:
        return F.interpolate(x, size[2:], mode="bilinear", align_corners=True)


@pytest.mark.parametrize("size", [(32, 48), (29, 41)])
def test_a_dense_module_is_given_the_sides_of_the_map_it_sees(size: tuple[int, int]) -> None:
    up, to_shape = run_dense(Up()), run_dense(UpToShape())
    body = nn.Conv2d(4, 4, 3, 2, 1).double()

    def run(x: Any) -> Any:
        small = body(x)
        return up(small, x.shape[2], x.shape[3]) + to_shape(small, x.shape) + up(small, *x.shape[2:])

    assert_both_laws(run, random_map(size))
    assert_runs_on_mixed_plans(run, random_map(size), Random(3))


def test_images_of_different_finest_levels_are_given_their_own_sides() -> None:
    up, body = run_dense(Up()), nn.Conv2d(4, 4, 3, 2, 1).double()
    x, levels = random_map((32, 32), 3), torch.zeros(3, 4, 4, dtype=torch.int8)
    levels[1], levels[2, :2, :2] = 2, 1

    def run(x: Any) -> Any:
        twice = 2 * x.shape[2] // 2, x.shape[3] + 8 - 8
        return up(body(x), *twice)

    found = run(split(x, Plan(levels, 8, (32, 32)))).dense()
    for n in range(3):
        alone = run(split(x[n : n + 1], Plan(levels[n : n + 1], 8, (32, 32)))).dense()
        torch.testing.assert_close(found[n : n + 1], alone)


def test_a_side_is_a_number_at_every_level() -> None:
    side = Extent({1: 17, 2: 9}, 8)
    assert (side, side * 2, side // 2, -side % 4, 2 + side, side - 1) == (17, 34, 8, 3, 19, 16)
    assert [at_level(2, n) for n in (side * 2, side // 2, -side % 4, 40 - side, side - side, 5)] == [
        *(18, 4, 3, 31, 0, 5)
    ]
    assert at_level(2, torch.Size((2, side))) == (2, 9)
    assert side / 2 == 8.5
    again = copy.deepcopy(side)
    assert (again, again.at, again.tile) == (17, side.at, 8)
    assert tile_sides([side * 2, -(-side // 2), side - 1, torch.Size((2, side)), 5, 1.5]) == [16, 4, 8, 8]


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 3)])
@pytest.mark.parametrize("dense", [False, True])
def test_sides_that_several_strides_have_tell_which_one_is_meant(dense: bool, size: tuple[int, int]) -> None:
    """A map of one sample has the same sides at every stride; it must come back at that of the other map."""
    up = run_dense(Up()) if dense else Up()
    body = nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)).double()

    def run(x: Any) -> Any:
        half = F.max_pool2d(x, 3, 2, 1)
        return half + up(body(x), *half.shape[2:])

    assert_both_laws(run, random_map(size))


def test_plain_maps_beside_tiles_are_cut() -> None:
    """As in pyramids: what was pooled is enlarged to the sides of the map, and joined with it."""

    def run(x: Any) -> Any:
        pooled = F.adaptive_avg_pool2d(x, 1).expand(-1, -1, 2, 3)
        large = F.interpolate(pooled, size=x.shape[2:], mode="bilinear")
        return torch.cat([x, large], 1) + torch.cat([large, x], 1)

    assert_both_laws(run, random_map((13, 21)))
    levels = torch.zeros(2, 2, 3, dtype=torch.int8)
    levels[1] = 1
    image, levels = random_map((16, 16)), levels[:, :, :2]
    both = run(split(image, Plan(levels, 8, (16, 16)))).dense()
    for n in range(2):  # whose finest levels are different ones
        alone = run(split(image[n : n + 1], Plan(levels[n : n + 1], 8, (16, 16)))).dense()
        torch.testing.assert_close(both[n : n + 1], alone)


class Enlarging(nn.Module):
    """A decoder that enlarges to the size of a finer map: on coarse tiles alone by another factor."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 4, 3, 4, 1), nn.Conv2d(4, 4, 3, 2, 1)
        self.head = nn.Conv2d(4, 3, 3, padding=1)
        self.stride, self.in_channels, self.classes = 4, 3, 3

    def forward(self, image: Any) -> Any:
        fine = self.fine(image)
        large = F.interpolate(self.coarse(fine), size=fine.shape[2:], mode="nearest")
        return self.head(large + fine)


def test_passes_of_other_levels_record_the_same_operations() -> None:
    """48 px are 3 samples of stride 16 at level 2, which is no multiple of those of twice the stride."""
    network = Enlarging().eval()
    method = CoarseToFine.from_config(network, CoarseToFineConfig(0.6, tile=8, coarse_level=2))
    with torch.no_grad():
        assert method(torch.rand(1, 3, 48, 64)).labels.shape == (1, 48, 64)
