"""Rules for operations that read beyond a tile: convolution, pooling and upsampling."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.geometry.layout import Fill, Halo
from foveal.ops import Convolution, Pooling, convolve, convolved, enlarge, fetch_halo, max_pool
from foveal.tiles.rules import Pair, Rule, need, pair, plain, rule
from foveal.tiles.tensor import TileTensor


@rule(F.pad, torch.constant_pad_nd)
def pad(
    func: Rule, x: TileTensor, pad: list[int], mode: str = "constant", value: float | None = None
) -> TileTensor:
    """Remember zeros around the map for the convolution or pooling that follows."""
    zeros = mode == "constant" and not value and len(pad) <= 4 and min(pad) >= 0
    need(zeros, "padding with something else than zeros")
    left, right, top, bottom = (*pad, 0, 0)[:4]
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
    window = _Window(pair(weight.shape[2:]), pair(stride), pair(dilation))
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
        _Window(c.kernel, (c.stride, c.stride), (1, 1)).check_stride(x, "a fused convolution")
    kept = _kept(x, c.halo, "convolution")
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
    bordered = _fetch(x, Halo(left, right, before, after), "conv_transpose2d")
    out = F.conv_transpose2d(bordered, weight, bias, stride, 0, output_padding, groups, dilation)
    top, start, side = before * s + p, left * s + q, x.side * s
    return x.with_tiles(out[:, :, top : top + side, start : start + side])


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
    window = _Window(pair(kernel_size), pair(stride or kernel_size), pair(dilation))
    halo = window.checked_halo(x, pair(padding), "lowest", "max_pool2d", ceil_mode)
    pooling = Pooling(window.kernel, window.stride, window.dilation, halo)
    out = x.with_tiles(max_pool(x.tiles, x.layout, pooling, _kept(x, halo, "max_pool2d")))
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
    window = _Window(pair(kernel_size), pair(stride or kernel_size), (1, 1))
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


@rule(F.interpolate)
def interpolate(
    func: Rule,
    x: TileTensor,
    size: Pair | None = None,
    scale_factor: float | list[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> TileTensor:
    """Upsample by a whole factor; bilinear upsampling borrows a halo of 1."""
    need(mode in ("nearest", "bilinear") and not align_corners, f"interpolate with mode='{mode}' or corners")
    factor = _factor(plain(x), size, scale_factor)
    need(x.stride % factor == 0, f"interpolate by {factor} beyond the image's resolution")
    if mode == "nearest" or factor == 1:
        return x.with_tiles(F.interpolate(x.tiles, scale_factor=factor, mode="nearest"))
    kept = _kept(x, Halo.around(1, "edge"), "interpolate")
    return x.with_tiles(enlarge(x.tiles, x.layout, factor, kept))


@rule(torch.pixel_shuffle, F.pixel_shuffle)
def pixel_shuffle(func: Rule, x: TileTensor, upscale_factor: int) -> TileTensor:
    """Spread channels over samples, tile by tile."""
    need(x.stride % upscale_factor == 0, "pixel_shuffle beyond the image's resolution")
    return plain(x).with_tiles(F.pixel_shuffle(x.tiles, upscale_factor))


class _Window:
    """A window that slides over a map: how far it reaches beyond a tile."""

    def __init__(self, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]) -> None:
        self.kernel, self.stride, self.dilation = kernel, stride, dilation
        self.reach = tuple(d * (k - 1) for k, d in zip(kernel, dilation, strict=True))

    def halo(self, padding: tuple[int, int], fill: Fill) -> Halo:
        """Samples needed beyond a tile when the first window starts `padding` before it."""
        top, left = padding
        bottom, right = (
            max(0, d * (k - 1) - p - (s - 1))
            for k, s, d, p in zip(self.kernel, self.stride, self.dilation, padding, strict=True)
        )
        return Halo(left, right, top, bottom, fill)

    def same_size(self, x: TileTensor, padding: tuple[int, int], ceil_mode: bool) -> bool:
        """Whether the dense result has ceil(side / stride) samples, with explicit padding included."""
        sides = x.layout.extent(x.side, 0)
        ends = (x.pad[3], x.pad[1]) if any(x.pad) else padding
        starts = (x.pad[2], x.pad[0]) if any(x.pad) else padding
        for n, k, s, d, p, q in zip(
            sides, self.kernel, self.stride, self.dilation, starts, ends, strict=True
        ):
            free = n + p + q - d * (k - 1) - 1
            if (-(-free // s) if ceil_mode else free // s) + 1 != -(-n // s):
                return False
        return True

    def borders(
        self, x: TileTensor, padding: tuple[int, int], fill: Fill, name: str, ceil_mode: bool = False
    ) -> Tensor:
        """Return the tiles with all that their windows reach."""
        halo = self.checked_halo(x, padding, fill, name, ceil_mode)
        return x.tiles if self.kernel == (1, 1) else _fetch(x, halo, name)

    def check_stride(self, x: TileTensor, name: str) -> None:
        """Refuse steps that tiles are no multiple of."""
        if all(x.side % s == 0 for s in self.stride) and self.stride[0] == self.stride[1]:
            return  # the sentence below takes longer to write than a small convolution
        need(
            False,
            f"{name} with stride {self.stride} on tiles of {x.side} samples (tile {x.layout.tile} at "
            f"stride {x.stride}); choose a tile that is a multiple of the network's stride",
        )

    def checked_halo(
        self, x: TileTensor, padding: tuple[int, int], fill: Fill, name: str, ceil_mode: bool = False
    ) -> Halo:
        """Return what the windows reach beyond a tile, if they can slide over tiles."""
        need(not (any(x.pad) and any(padding)), f"{name} with padding after an explicit padding")
        need(not (any(x.pad) and fill == "lowest"), f"{name} after an explicit padding")
        need(
            self.same_size(x, padding, ceil_mode),
            f"{name} with kernel {self.kernel}, stride {self.stride}, padding {padding}, dilation "
            f"{self.dilation} on a map of {tuple(x.shape[2:])}: the result is not the side divided by the "
            "stride, rounded up",
        )
        self.check_stride(x, name)
        start = (x.pad[2], x.pad[0]) if any(x.pad) else padding
        need(
            all(p <= r for p, r in zip(start, self.reach, strict=True)),
            f"{name} with a padding that is wider than its kernel reaches",
        )
        return self.halo(start, fill)


def _kept(x: TileTensor, halo: Halo, name: str) -> Tensor | None:
    """Record what an operation reads, and return what was kept for it."""
    return x.tape.exchange(name, x.tiles) if x.tape and not halo.empty else None


def _fetch(x: TileTensor, halo: Halo, name: str) -> Tensor:
    """Borrow a halo, from remembered tiles too."""
    if halo.empty and x.layout.inside(x.side) is None:
        return x.tiles
    return fetch_halo(x.tiles, x.layout, halo, _kept(x, halo, name))


def _factor(x: TileTensor, size: Pair | None, scale: float | list[float] | None) -> int:
    """Whole factor of an upsampling, the same for both sides."""
    if size is None:
        scales = {float(s) for s in (scale if isinstance(scale, list | tuple) else [scale]) if s}
        need(len(scales) == 1 and min(scales).is_integer(), f"interpolate by {scale}")
        return int(min(scales))
    height, width = x.shape[2:]
    rows, columns = pair(size)
    need(
        rows % height == 0 and columns % width == 0 and rows // height == columns // width,
        f"interpolate from {(height, width)} to {(rows, columns)}, which is no whole factor: upsample by "
        f"scale_factor and crop, or pad the image to multiples of {x.stride}",
    )
    return rows // height
