"""What convolutions mean on tiles, which see beyond the tile."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.geometry.layout import Halo
from foveal.ops import Convolution, convolve, convolved
from foveal.tiles.rules import Pair, Rule, need, pair, plain, rule
from foveal.tiles.sliding import Window, fetch, kept_for
from foveal.tiles.tensor import TileTensor


@rule(F.pad, torch.constant_pad_nd)
def pad(
    func: Rule, x: TileTensor, pad: list[int], mode: str = "constant", value: float | None = None
) -> TileTensor:
    """Remember zeros around the map for the convolution or pooling that follows."""
    zeros = mode == "constant" and not value and len(pad) <= 4 and min(pad) >= 0
    need(zeros, "padding with something else than zeros")
    left, right, top, bottom = (*map(int, pad), 0, 0)[:4]
    return replace(plain(x), pad=(left, right, top, bottom))


@rule(torch.conv2d)
def conv2d(
    func: Rule,
    x: TileTensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> TileTensor:
    """Borrow a halo, then convolve without padding."""
    window = Window(pair(weight.shape[2:]), pair(stride), pair(dilation))
    if padding == "same":
        (top, bottom), (left, right) = ((r // 2, r - r // 2) for r in window.reach)
        x, padding = replace(plain(x), pad=(left, right, top, bottom)), 0
    padding = 0 if padding == "valid" else padding
    bordered = window.borders(x, pair(padding), "zero", "conv2d")
    return x.with_tiles(F.conv2d(bordered, weight, bias, window.stride, 0, window.dilation, groups))


@rule(convolved)
def convolution(func: Rule, x: TileTensor, c: Convolution, residual: TileTensor | None = None) -> TileTensor:
    """Convolve through the borders, with what a fused network does before and after."""
    if plain(x).side % c.stride:
        Window(c.kernel, (c.stride, c.stride), (1, 1)).check_stride(x, "a fused convolution")
    kept = kept_for(x, c.halo, "convolution")
    other = None
    if residual is not None:
        need(residual.layout is x.layout, "a residual of tiles of another plan")
        need(residual.side == x.side // c.stride, f"a residual of stride {residual.stride}")
        other = plain(residual).tiles
    return x.with_tiles(convolve(x.tiles, x.layout, c, other, kept))


@rule(torch.conv_transpose2d)
def conv_transpose2d(
    func: Rule,
    x: TileTensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
) -> TileTensor:
    """Borrow what reaches into the tile, spread, then crop. The map must grow by exactly the stride."""
    plain(x)
    steps = []
    for k, s, p, o, d in zip(
        weight.shape[2:], pair(stride), pair(padding), pair(output_padding), pair(dilation), strict=True
    ):
        reach = d * (k - 1)
        need(reach + 1 + o - 2 * p == s, "conv_transpose2d that does not grow the map by its stride")
        steps.append((s, max(0, (reach - p) // s), max(0, (s - 1 + p) // s), p))
    (s, before, after, p), (_, left, right, q) = steps
    need(pair(stride)[0] == pair(stride)[1], "conv_transpose2d with unequal strides")
    need(x.stride % s == 0, "conv_transpose2d beyond the image's resolution")
    bordered = fetch(x, Halo(left, right, before, after), "conv_transpose2d")
    out = F.conv_transpose2d(bordered, weight, bias, stride, 0, output_padding, groups, dilation)
    top, start, side = before * s + p, left * s + q, x.side * s
    return x.with_tiles(out[:, :, top : top + side, start : start + side])
