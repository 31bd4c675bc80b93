"""What convolutions mean on tiles, which see beyond the tile."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

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
    halo = window.checked_halo(x, pair(padding), "zero", "conv2d")
    if max(halo[:4]) > x.side and len({*window.dilation}) == 1:
        start = (halo.top, halo.left)  # windows reach over whole tiles: they are looked up, not copied
        c = Convolution(weight, bias, window.stride[0], start, window.dilation[0], groups)
        return x.with_tiles(convolve(x.tiles, x.layout, c, None, kept_for(x, halo, "conv2d")))
    bordered = x.tiles if window.kernel == (1, 1) else fetch(x, halo, "conv2d")
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
    """Split the result by its phase within a step; each phase is an ordinary convolution of the tiles.

    So exactly the products of the dense network are computed, and a tile borrows only the samples that reach
    into it. The map must grow by exactly the stride.
    """
    plain(x)
    step, other = pair(stride)
    need(step == other, "conv_transpose2d with unequal strides")
    spread = _Spread(weight, step, pair(padding), pair(dilation), groups)
    grows = all(
        r + 1 + o - 2 * p == step
        for r, p, o in zip(spread.reach, spread.padding, pair(output_padding), strict=True)
    )
    need(grows, "conv_transpose2d that does not grow the map by its stride")
    need(x.stride % step == 0, "conv_transpose2d beyond the image's resolution")
    (before, after), (left, right) = (spread.halo(axis) for axis in (0, 1))
    bordered = fetch(x, Halo(left, right, before, after), "conv_transpose2d")
    phases = [
        spread.phase(bordered, (row, column), (before, left), x.side, bias)
        for row in range(step)
        for column in range(step)
    ]
    return x.with_tiles(F.pixel_shuffle(torch.stack(phases, 2).flatten(1, 2), step))


class _Taps(NamedTuple):
    """Weights along one axis that meet a phase of the result.

    Attributes:
        first: Number of the first one.
        every: Distance to the next one.
        offsets: Sample that each is multiplied with, counted from the one that the phase belongs to.
    """

    first: int
    every: int
    offsets: list[int]


class _Spread:
    """A transposed convolution, as one convolution a phase."""

    def __init__(
        self, weight: Tensor, step: int, padding: tuple[int, int], dilation: tuple[int, int], groups: int
    ) -> None:
        self.step, self.padding, self.dilation, self.groups = step, padding, dilation, groups
        self.kernel = weight.shape[2], weight.shape[3]
        self.reach = [d * (k - 1) for k, d in zip(self.kernel, dilation, strict=True)]
        weight = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
        self.weight = weight  # [out, in / groups, height, width], as of an ordinary convolution

    def taps(self, axis: int, phase: int) -> _Taps:
        """Find the weights k for which phase + padding - k dilation is a whole number of steps."""
        shifted, dilation = phase + self.padding[axis], self.dilation[axis]
        met = [k for k in range(self.kernel[axis]) if (shifted - k * dilation) % self.step == 0]
        offsets = [(shifted - k * dilation) // self.step for k in met]
        return _Taps(met[0] if met else 0, met[1] - met[0] if len(met) > 1 else self.kernel[axis], offsets)

    def halo(self, axis: int) -> tuple[int, int]:
        """Samples borrowed before and after a tile."""
        offsets = [0, *(o for phase in range(self.step) for o in self.taps(axis, phase).offsets)]
        return -min(offsets), max(offsets)

    def phase(
        self, x: Tensor, phase: tuple[int, int], halo: tuple[int, int], side: int, bias: Tensor | None
    ) -> Tensor:
        """Compute one phase [B, out, side, side] from bordered tiles."""
        rows, columns = (self.taps(axis, phase[axis]) for axis in (0, 1))
        if not rows.offsets or not columns.offsets:  # a kernel smaller than the stride leaves gaps
            out = x.new_zeros(len(x), len(self.weight), side, side)
            return out if bias is None else out + bias[:, None, None]
        weight = self.weight[:, :, rows.first :: rows.every, columns.first :: columns.every].flip(2, 3)
        dilation = []
        for dim, taps, before in ((2, rows, halo[0]), (3, columns, halo[1])):
            first, last = min(taps.offsets), max(taps.offsets)
            x = x.narrow(dim, before + first, side + last - first)
            dilation.append((last - first) // max(1, len(taps.offsets) - 1) or 1)
        return F.conv2d(x, weight, bias, 1, 0, dilation, self.groups)
