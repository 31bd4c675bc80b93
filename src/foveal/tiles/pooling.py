"""What pooling means on tiles: windows see beyond the tile, adaptive ones see the whole map."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.ops import Pooling, fetch_halo, max_pool
from foveal.tiles.rules import Pair, Rule, need, pair, rule
from foveal.tiles.sliding import Window, kept_for
from foveal.tiles.statistics import global_mean
from foveal.tiles.tensor import TileTensor


@rule(F.adaptive_avg_pool2d)
def adaptive_avg_pool2d(func: Rule, x: TileTensor, output_size: Pair) -> Tensor:
    """Average over the whole image, which gives a plain tensor [N, C, 1, 1]."""
    need(pair(output_size) == (1, 1), f"adaptive_avg_pool2d to {output_size} (only the global mean has one)")
    return global_mean(x)[:, :, None, None]


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
    """Borrow a halo, then average; samples outside the image count as the arguments say."""
    need(divisor_override is None, "avg_pool2d with a divisor")
    window = Window(pair(kernel_size), pair(stride or kernel_size), (1, 1))
    counted = count_include_pad or any(x.pad)
    need(
        window.same_size(x, pair(padding), False) or not counted,
        "avg_pool2d that counts padding and goes over the edge",
    )
    bordered = window.borders(x, pair(padding), "zero", "avg_pool2d", ceil_mode)
    mean = F.avg_pool2d(bordered, window.kernel, window.stride)
    if counted:
        return x.with_tiles(mean)
    ones = x.tiles.new_ones(len(x.layout), 1, x.side, x.side).split(
        [x.layout.computed, len(x.layout) - x.layout.computed]
    )
    known = fetch_halo(ones[0], x.layout, window.halo(pair(padding), "zero"), ones[1])
    share = F.avg_pool2d(known, window.kernel, window.stride)
    return x.with_tiles(mean / share.clamp(min=1e-6))
