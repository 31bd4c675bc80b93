"""What resizing means on tiles: upsampling, downsampling, and moving samples into channels and back."""

from __future__ import annotations

from collections.abc import Iterator
from math import log
from typing import Any

import torch
from torch.nn import functional as F

from foveal.ops import Resampling, enlarge, resample
from foveal.ops.resample.spec import MODES
from foveal.tiles.dense import groups, lower
from foveal.tiles.extent import Extent, at_level, tile_sides
from foveal.tiles.grid import GRID_RULES, Grid, as_plain
from foveal.tiles.rules import Pair, Rule, need, need_geometry, pad_to, pair, plain, rule
from foveal.tiles.tensor import TileTensor


@rule(F.interpolate)
def interpolate(
    func: Rule,
    x: TileTensor,
    size: Pair | None = None,
    scale_factor: float | list[float] | None = None,
    mode: Any = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> TileTensor:
    """Resize to another whole stride of the image; bilinear resizing borrows a halo."""
    need(mode in MODES and not antialias, f"interpolate with mode='{mode}'{' and antialias' * antialias}")
    corners, levels = bool(align_corners), range(max(plain(x).layout.levels, default=0) + 1)
    if size is None:
        factor = _factor(x, scale_factor)
        exact, scale = factor >= 1, None if recompute_scale_factor and factor < 1 else factor
        side = round(factor * x.side)
    else:
        side, scale = _side(x, pair(size)), None
        factor = side / x.side
        exact = factor.is_integer() and all(_multiple(x, side, level) for level in levels)
    if side == x.side:
        return x
    alone = exact and mode == "nearest"  # no tile reads another one
    if alone and size is None:
        return x.with_tiles(F.interpolate(x.tiles, scale_factor=int(factor), mode="nearest"))
    # Recorded for any size: whether it is exact depends on the levels, and later passes have others.
    kept = None if x.tape is None else x.tape.exchange("interpolate", x.tiles)
    if alone:
        return x.with_tiles(F.interpolate(x.tiles, scale_factor=int(factor), mode="nearest"))
    if exact and not corners and mode == "bilinear":
        return x.with_tiles(enlarge(x.tiles, x.layout, int(factor), kept))
    return x.with_tiles(resample(x.tiles, x.layout, Resampling(side, mode, corners, scale), kept))


def _spread(func: Rule, grid: Grid, size: Any = None, *args: Any, **kwargs: Any) -> TileTensor | None:
    """Spread a grid over the map whose sides are given, for every finest level by itself; None for others."""
    sizes = size if isinstance(size, list | tuple) else [size]
    if not any(isinstance(side, Extent) for side in sizes):
        return None
    x, found = as_plain(grid), groups(grid.source.layout)
    parts = [
        func(x[group.images], [at_level(group.level, side) for side in sizes], *args, **kwargs)
        for group in found
    ]
    made: TileTensor = lower([grid.source], found, parts, tile_sides(list(sizes)))
    return made


GRID_RULES[F.interpolate] = _spread


@rule(torch.pixel_shuffle, F.pixel_shuffle)
def pixel_shuffle(func: Rule, x: TileTensor, upscale_factor: int) -> TileTensor:
    """Spread channels over samples, tile by tile."""
    need(x.stride % upscale_factor == 0, "pixel_shuffle beyond the image's resolution")
    return plain(x).with_tiles(F.pixel_shuffle(x.tiles, upscale_factor))


@rule(torch.pixel_unshuffle, F.pixel_unshuffle)
def pixel_unshuffle(func: Rule, x: TileTensor, downscale_factor: int) -> TileTensor:
    """Gather samples as channels, tile by tile."""
    need_geometry(
        x.side % downscale_factor == 0,
        f"pixel_unshuffle by {downscale_factor} on tiles of {x.side} samples (tile {x.layout.tile} at stride "
        f"{x.stride})",
        "choose a tile that is a multiple of the network's stride",
    )
    whole = all(side % downscale_factor == 0 for side in plain(x).shape[2:])
    what = f"pixel_unshuffle by {downscale_factor} of a map of {tuple(x.shape[2:])}"
    need_geometry(whole, what, pad_to(x, downscale_factor))
    return x.with_tiles(F.pixel_unshuffle(x.tiles, downscale_factor))


def _factor(x: TileTensor, scale: float | list[float] | None) -> float:
    """Factor of a resizing to another whole stride of the image, the same for both sides."""
    scales = {float(s) for s in (scale if isinstance(scale, list | tuple) else [scale]) if s}
    need(len(scales) == 1, f"interpolate by {scale}")
    factor = min(scales)
    side = round(factor * x.side)
    need(
        side >= 1 and side == factor * x.side and x.layout.tile % side == 0,
        f"interpolate by {factor:g} from stride {x.stride}, to what is no whole stride of the image,",
    )
    old, new = x.layout.extent(x.side, 0), x.layout.extent(side, 0)
    need_geometry(
        factor >= 1 or new == tuple(int(n * factor) for n in old),
        f"interpolate by {factor:g} from {old}, which is no multiple of the step",
        pad_to(x, round(1 / factor)),
    )
    return factor


def _multiple(x: TileTensor, side: int, level: int) -> bool:
    """Whether a map of larger tiles has, at a level, exactly so many times the samples."""
    old, new = x.layout.extent(x.side, level), x.layout.extent(side, level)
    return all(b == a * (side // x.side) for a, b in zip(old, new, strict=True))


def _side(x: TileTensor, size: tuple[int, int]) -> int:
    """Find the side of tiles whose map has a size; of several, the one that it was taken from."""
    level = min(x.layout.finest)
    wanted = tuple(map(int, size))
    height, width = x.layout.extent(x.side, level)
    fitting = [s for s in _sides(x) if x.layout.extent(s, level) == wanted]
    what = (
        f"interpolate from {(height, width)} to {wanted}, which is the size of no map of the image of "
        f"{x.layout.size[0]}x{x.layout.size[1]} px at a whole stride"
    )
    ragged = any(side % x.stride for side in x.layout.size)
    need_geometry(bool(fitting) or not ragged, what, pad_to(x, 1))
    need(bool(fitting), f"{what},")
    hints = [s for s in tile_sides(list(size)) if s in fitting]
    ratio = log(wanted[0] / height) + log(wanted[1] / width)
    return hints[0] if hints else min(fitting, key=lambda s: abs(2 * log(s / x.side) - ratio))


def _sides(x: TileTensor) -> Iterator[int]:
    """Sides that tiles have at the whole strides of the image."""
    return (s for s in range(1, x.layout.tile + 1) if x.layout.tile % s == 0)
