"""What pooling means on tiles: windows see beyond the tile, grids over the whole image see the whole map."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.ops import Pooling, fetch_halo, max_pool
from foveal.tiles.dense import groups, in_order, lift
from foveal.tiles.extent import Extent, tile_sides
from foveal.tiles.grid import as_grid
from foveal.tiles.rules import Pair, Rule, need, pair, plain, rule
from foveal.tiles.sliding import Window, kept_for
from foveal.tiles.statistics import global_mean
from foveal.tiles.tensor import TileTensor, name_of, pool


@rule(F.adaptive_avg_pool2d)
def adaptive_avg_pool2d(func: Rule, x: TileTensor, output_size: Pair) -> Any:
    """Average over the parts of a grid.

    A grid of fixed sides gives a plain tensor [N, C, *output_size]; the size of a coarser map gives that map.
    """
    if step := _step(x, output_size, "adaptive_avg_pool2d"):
        return avg_pool2d(F.avg_pool2d, x, step)
    if pair(output_size) == (1, 1):
        return _grid(global_mean(plain(x))[:, :, None, None], x)
    return _adaptive(F.adaptive_avg_pool2d, x, output_size)


@rule(F.adaptive_max_pool2d)
def adaptive_max_pool2d(func: Rule, x: TileTensor, output_size: Pair, return_indices: bool = False) -> Any:
    """Take the maximum over the parts of a grid, which gives what averaging gives."""
    need(not return_indices, "adaptive_max_pool2d with indices")
    if step := _step(x, output_size, "adaptive_max_pool2d"):
        return max_pool2d(F.max_pool2d, x, step)
    return _adaptive(F.adaptive_max_pool2d, x, output_size)


def _step(x: TileTensor, output_size: Any, name: str) -> int | None:
    """Return the side of the windows that pool a map to the size of a coarser one.

    None if the size is that of a grid: numbers that no map has told.
    """
    sizes = output_size if isinstance(output_size, list | tuple) else (output_size,) * 2
    if not all(isinstance(size, Extent) for size in sizes):
        return None
    sides = {*tile_sides(list(sizes))}
    side = sides.pop() if len(sides) == 1 else 0
    known = side > 0 and x.side % side == 0 and x.layout.tile % side == 0
    levels = {*x.layout.finest}
    fits = known and all(
        tuple(size.at.get(level) for size in sizes) == x.layout.extent(side, level) for level in levels
    )
    need(fits, f"{name} of a map of {tuple(x.shape[2:])} to {tuple(map(int, sizes))}, no whole part of it,")
    return x.side // side


def _adaptive(pooled: Rule, x: TileTensor, output_size: Pair) -> Tensor:
    """Pool the dense map of every image, at its finest level."""
    tiles, found = pool(plain(x), name_of(pooled)), groups(x.layout)
    return _grid(in_order([pooled(lift(x, tiles, group), output_size) for group in found], found), x)


def _grid(found: Tensor, x: TileTensor) -> Tensor:
    """Let a grid know its tiles where images have several finest levels."""
    return found if len(set(x.layout.finest)) == 1 else as_grid(found, plain(x).with_tiles(x.tiles))


@rule(torch.max_pool2d, F.max_pool2d)
def max_pool2d(
    func: Rule,
    x: TileTensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> TileTensor:
    """Borrow a halo, with the lowest number outside the image, then take the maximum."""
    need(not return_indices, "max_pool2d with indices")
    window = Window(pair(kernel_size), pair(stride or kernel_size), pair(dilation))
    halo = window.checked_halo(x, pair(padding), "lowest", "max_pool2d", ceil_mode)
    pooling = Pooling(window.kernel, window.stride, window.dilation, halo)
    out = x.with_tiles(max_pool(x.tiles, x.layout, pooling, kept_for(x, halo, "max_pool2d")))
    inside = x.layout.inside(out.side, x.device)
    if inside is None:
        return out
    return out.with_tiles(out.tiles.masked_fill(~inside[:, None], 0.0))  # the lowest number would overflow


@rule(F.avg_pool2d)
def avg_pool2d(
    func: Rule,
    x: TileTensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> TileTensor:
    """Borrow a halo, then add and divide; samples outside the image count as the arguments say."""
    window = Window(pair(kernel_size), pair(stride or kernel_size), (1, 1))
    bordered = window.borders(x, pair(padding), "zero", "avg_pool2d", ceil_mode)
    sums = F.avg_pool2d(bordered, window.kernel, window.stride, divisor_override=1)
    if divisor_override is not None:
        return x.with_tiles(sums / divisor_override)
    if count_include_pad or any(x.pad):
        return x.with_tiles(sums / window.counts(x, pair(padding)).to(sums)[:, None])
    ones = x.tiles.new_ones(len(x.layout), 1, x.side, x.side).split(
        [x.layout.computed, len(x.layout) - x.layout.computed]
    )
    known = fetch_halo(ones[0], x.layout, window.halo(pair(padding), "zero"), ones[1])
    counts = F.avg_pool2d(known, window.kernel, window.stride, divisor_override=1)
    return x.with_tiles(sums / counts.clamp(min=0.5))
