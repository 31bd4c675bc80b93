"""What torch functions mean on tiles: one rule a function, keyed by the function object.

Functions that work sample by sample run as they are on the batch of tiles. Windows (convolution, pooling,
bilinear upsampling) first borrow a halo. What looks at the whole map has no rule, except the global mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.ops import Halo, fetch_halo
from foveal.ops.layout import Fill
from foveal.tiles.tensor import RULES, NoTileRule, TileTensor, name_of, no_rule

Rule = Callable[..., Any]
Pair = int | tuple[int, ...] | list[int]


def rule(*functions: Any) -> Callable[[Rule], Rule]:
    """Enter a rule for some torch functions."""

    def enter(meaning: Rule) -> Rule:
        for function in functions:
            RULES[function] = meaning
        return meaning

    return enter


def _named(*names: str) -> list[Any]:
    """Find functions of a name wherever torch has them, methods and in-place forms included."""
    spots = (torch, F, Tensor)
    forms = [
        form for name in names for form in (name, f"{name}_", f"__{name}__", f"__i{name}__", f"__r{name}__")
    ]
    return [getattr(spot, form) for spot in spots for form in forms if hasattr(spot, form)]


@rule(
    *_named("relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "softplus"),
    *_named("hardtanh", "hardswish", "hardsigmoid", "sigmoid", "tanh", "logsigmoid"),
    *_named("clamp", "exp", "log", "sqrt", "rsqrt", "abs", "neg", "square", "pow"),
    *_named("dropout", "dropout2d", "detach", "clone", "contiguous", "to", "float", "half", "double"),
)
def per_sample(func: Rule, x: TileTensor, *args: Any, **kwargs: Any) -> TileTensor:
    """Apply to every tile; in-place forms return a new value instead."""
    kwargs.pop("inplace", None)
    kwargs.pop("memory_format", None)
    return plain(x).with_tiles(_out_of_place(func)(x.tiles, *args, **kwargs))


@rule(*_named("add", "sub", "mul", "div", "truediv", "maximum", "minimum"), torch.true_divide)
def arithmetic(func: Rule, x: Any, y: Any, **kwargs: Any) -> TileTensor:
    """Combine two maps of the same tiles, or a map with numbers per channel or per image and channel."""
    like = x if isinstance(x, TileTensor) else y
    left, right = (_operand(value, like, func) for value in (x, y))
    return like.with_tiles(_out_of_place(func)(left, right, **kwargs))


@rule(torch.cat, torch.concat, torch.concatenate)
def concatenate(func: Rule, maps: list[TileTensor], dim: int = 0) -> TileTensor:
    """Join maps of the same tiles along the channels."""
    _need(dim in (1, -3), "cat along another dimension than the channels")
    for x in maps:
        _need(isinstance(x, TileTensor), "cat of tiles with plain tensors")
    return maps[0].with_tiles(torch.cat([_operand(x, maps[0], func) for x in maps], 1))


@rule(*_named("softmax", "log_softmax", "sum", "amax", "argmax", "chunk", "split", "unbind"))
def along_channels(func: Rule, x: TileTensor, *args: Any, **kwargs: Any) -> Any:
    """Apply to the channels of every sample."""
    position = 1 if name_of(func) in ("chunk", "split") else 0
    dim = kwargs.get("dim", args[position] if len(args) > position else None)
    _need(dim in (1, -3, [1], (1,)), f"{name_of(func)} along another dimension than the channels")
    result = func(plain(x).tiles, *args, **kwargs)
    if isinstance(result, Tensor):
        _need(result.ndim == 4, f"{name_of(func)} that drops the channels")
        return x.with_tiles(result)
    return type(result)(x.with_tiles(part) for part in result)


@rule(Tensor.__getitem__)
def take(func: Rule, x: TileTensor, index: Any) -> TileTensor:
    """Take channels; a crop must end where the map ends."""
    index = index if isinstance(index, tuple) else (index,)
    index = (
        tuple(i for i in index if i is not Ellipsis)
        if index[0] is not Ellipsis
        else ((slice(None),) * (5 - len(index)) + index[1:])
    )
    whole = [
        slice(*part.indices(n)) == slice(0, n, 1) if isinstance(part, slice) else False
        for part, n in zip(index, x.shape, strict=False)
    ]
    channels = index[1] if len(index) > 1 else slice(None)
    _need(all(whole[:1] + whole[2:]) and isinstance(channels, slice), "indexing other than channels")
    return plain(x).with_tiles(x.tiles[:, channels])


@rule(torch.batch_norm, F.batch_norm)
def batch_norm(
    func: Rule,
    x: TileTensor,
    mean: Tensor | None,
    var: Tensor | None,
    *args: Any,
    **kwargs: Any,
) -> TileTensor:
    """Normalise; statistics in training are over all samples of all tiles that lie in the image."""
    names = ("weight", "bias", "training", "momentum", "eps")
    settings = dict(zip(names, args, strict=False)) | kwargs
    inside = x.layout.inside(x.side) if settings.get("training") else None
    if inside is None:
        return plain(x).with_tiles(F.batch_norm(x.tiles, mean, var, **settings))
    rows = x.tiles.permute(0, 2, 3, 1)
    normal = F.batch_norm(rows[inside], mean, var, **settings)
    return plain(x).with_tiles(torch.zeros_like(rows).index_put((inside,), normal).permute(0, 3, 1, 2))


@rule(F.pad, torch.constant_pad_nd)
def pad(
    func: Rule, x: TileTensor, pad: list[int], mode: str = "constant", value: float | None = None
) -> TileTensor:
    """Remember zeros around the map for the convolution or pooling that follows."""
    _need(mode == "constant" and not value and len(pad) <= 4, "padding with something else than zeros")
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
    window = _Window(_pair(weight.shape[2:]), _pair(stride), _pair(dilation))
    if isinstance(padding, str):
        reach = [d * (k - 1) for d, k in zip(window.dilation, window.kernel, strict=True)]
        padding = (0, 0) if padding == "valid" else (reach[0] // 2, reach[1] // 2)
    bordered = window.borders(x, _pair(padding), "zero", "conv2d")
    return x.with_tiles(F.conv2d(bordered, weight, bias, window.stride, 0, window.dilation, groups))


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
        weight.shape[2:], _pair(stride), _pair(padding), _pair(output_padding), _pair(dilation), strict=True
    ):
        reach = d * (k - 1)
        _need(reach + 1 + o - 2 * p == s, "conv_transpose2d that does not grow the map by its stride")
        steps.append((s, max(0, (reach - p) // s), max(0, (s - 1 + p) // s), p))
    (s, before, after, p), (_, left, right, q) = steps
    _need(_pair(stride)[0] == _pair(stride)[1], "conv_transpose2d with unequal strides")
    bordered = _fetch(x, Halo(left, right, before, after), "conv_transpose2d")
    out = F.conv_transpose2d(bordered, weight, bias, stride, 0, 0, groups, dilation)
    top, start, side = before * s + p, left * s + q, x.side * s
    missing = (top + side - out.shape[2], start + side - out.shape[3])
    out = F.pad(out, (0, max(0, missing[1]), 0, max(0, missing[0])))
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
    _need(not return_indices, "max_pool2d with indices")
    window = _Window(_pair(kernel_size), _pair(stride or kernel_size), _pair(dilation))
    bordered = window.borders(x, _pair(padding), "lowest", "max_pool2d", ceil_mode)
    return x.with_tiles(F.max_pool2d(bordered, window.kernel, window.stride, 0, window.dilation))


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
    _need(divisor_override is None, "avg_pool2d with a divisor")
    window = _Window(_pair(kernel_size), _pair(stride or kernel_size), (1, 1))
    _need(
        window.same_size(x, _pair(padding), False) or not count_include_pad,
        "avg_pool2d that counts padding and goes over the edge",
    )
    mean = F.avg_pool2d(
        window.borders(x, _pair(padding), "zero", "avg_pool2d", ceil_mode), window.kernel, window.stride
    )
    if count_include_pad:
        return x.with_tiles(mean)
    ones = x.with_tiles(torch.ones_like(x.tiles[:, :1]))
    share = F.avg_pool2d(
        fetch_halo(ones.tiles, x.layout, window.halo(_pair(padding), "zero")), window.kernel, window.stride
    )
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
    _need(mode in ("nearest", "bilinear") and not align_corners, f"interpolate with mode='{mode}' or corners")
    factor = _factor(plain(x), size, scale_factor)
    _need(x.stride % factor == 0, f"interpolate by {factor} beyond the image's resolution")
    if mode == "nearest" or factor == 1:
        return x.with_tiles(F.interpolate(x.tiles, scale_factor=factor, mode="nearest"))
    bordered = _fetch(x, Halo.around(1, "edge"), "interpolate")
    large = F.interpolate(bordered, scale_factor=factor, mode="bilinear", align_corners=False)
    return x.with_tiles(large[:, :, factor:-factor, factor:-factor])


@rule(torch.pixel_shuffle, F.pixel_shuffle)
def pixel_shuffle(func: Rule, x: TileTensor, upscale_factor: int) -> TileTensor:
    """Spread channels over samples, tile by tile."""
    _need(x.stride % upscale_factor == 0, "pixel_shuffle beyond the image's resolution")
    return plain(x).with_tiles(F.pixel_shuffle(x.tiles, upscale_factor))


@rule(F.adaptive_avg_pool2d)
def adaptive_avg_pool2d(func: Rule, x: TileTensor, output_size: Pair) -> Tensor:
    """Average over the whole image, which gives a plain tensor [N, C, 1, 1]."""
    _need(
        _pair(output_size) == (1, 1), f"adaptive_avg_pool2d to {output_size} (only the global mean has one)"
    )
    return global_mean(x)[:, :, None, None]


@rule(torch.mean, Tensor.mean)
def mean(func: Rule, x: TileTensor, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Any:
    """Average over the whole image or over the channels."""
    dims = {d % 4 for d in (dim if isinstance(dim, list | tuple) else [dim])} if dim is not None else set()
    if dims == {2, 3}:
        result = global_mean(x)
        return result[:, :, None, None] if keepdim else result
    _need(dims == {1} and keepdim, "mean other than over the image, or over the channels with keepdim")
    return plain(x).with_tiles(x.tiles.mean(1, keepdim=True))


def global_mean(x: TileTensor) -> Tensor:
    """Mean over the image [N, C]: every sample of a tile counts with the area it stands for."""
    plain(x)
    kept = x.tape.look("global mean", x.tiles) if x.tape else None
    layout = x.layout
    pool = x.tiles if kept is None else torch.cat([x.tiles, kept])
    area = _area(x).to(pool)
    sums = torch.einsum("bchw,bhw->bc", pool, area)
    total = pool.new_zeros(layout.images, pool.shape[1]).index_add(0, layout.image, sums)
    norm = pool.new_zeros(layout.images).index_add(0, layout.image, area.sum((1, 2)))
    return total / norm.clamp(min=1)[:, None]


def _area(x: TileTensor) -> Tensor:
    """Area of every sample [B, side, side] in samples of level 0; 0 outside the image or where not owner."""
    layout, side = x.layout.everything, x.side
    inside = layout.inside(side)
    ones = torch.ones(len(layout), side, side, device=x.device)
    area = ones * (4.0 ** layout.level.view(-1, 1, 1)) * (ones if inside is None else inside)
    if x.layout.computed < len(x.layout):
        area = area * _owned(x, side)
    return area


def _owned(x: TileTensor, side: int) -> Tensor:
    """Share of each sample [B, side, side] whose place still belongs to its tile."""
    layout = x.layout
    out = torch.zeros(len(layout), side, side, device=x.device)
    for b, (n, level, row, column) in enumerate(
        torch.stack([layout.image, layout.level, layout.row, layout.column], 1).tolist()
    ):
        mine = (layout.owner[n, row : row + 2**level, column : column + 2**level] == b).float()
        mine = F.pad(mine, (0, 2**level - mine.shape[1], 0, 2**level - mine.shape[0]))
        if level == 0 or side % 2**level == 0:
            out[b] = F.interpolate(mine[None, None], size=(side, side), mode="nearest")[0, 0]
        else:
            out[b] = F.adaptive_avg_pool2d(mine[None], side)[0]
    return out


class _Window:
    """A window that slides over a map: how far it reaches beyond a tile."""

    def __init__(self, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]) -> None:
        self.kernel, self.stride, self.dilation = kernel, stride, dilation

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
        _need(not (any(x.pad) and any(padding)), f"{name} with padding after an explicit padding")
        _need(not (any(x.pad) and fill == "lowest"), f"{name} after an explicit padding")
        _need(
            self.same_size(x, padding, ceil_mode),
            f"{name} with kernel {self.kernel}, stride {self.stride}, padding {padding}, dilation "
            f"{self.dilation} on a map of {tuple(x.shape[2:])}: the result is not the side divided by the "
            "stride, rounded up",
        )
        for s in self.stride:
            _need(
                x.side % s == 0 and self.stride[0] == self.stride[1],
                f"{name} with stride {self.stride} on tiles of {x.side} samples (tile {x.layout.tile} at "
                f"stride {x.stride}); choose a tile that is a multiple of the network's stride",
            )
        if self.kernel == (1, 1):
            return x.tiles
        start = (x.pad[2], x.pad[0]) if any(x.pad) else padding
        return _fetch(x, self.halo(start, fill), name)


def _fetch(x: TileTensor, halo: Halo, name: str) -> Tensor:
    """Borrow a halo, from remembered tiles too."""
    if halo.empty and x.layout.inside(x.side) is None:
        return x.tiles
    kept = x.tape.look(name, x.tiles) if x.tape and not halo.empty else None
    return fetch_halo(x.tiles, x.layout, halo, kept)


def _operand(value: Any, like: TileTensor, func: Rule) -> Any:
    """Bring an operand to the tiles of `like`."""
    if isinstance(value, TileTensor):
        _need(value.layout is like.layout, f"{name_of(func)} of tiles of different plans")
        _need(
            value.side == like.side and not any(value.pad) and not any(like.pad),
            f"{name_of(func)} of maps with strides {value.stride} and {like.stride}, or with padding",
        )
        return value.tiles
    if not isinstance(value, Tensor) or value.ndim == 0:
        return value
    _need(
        value.ndim >= 3 and tuple(value.shape[-2:]) == (1, 1),
        f"{name_of(func)} of tiles with a plain tensor of {tuple(value.shape)}",
    )
    if value.ndim == 4 and value.shape[0] > 1:
        return value[like.layout.image[: like.layout.computed]]
    return value


def plain(x: TileTensor) -> TileTensor:
    """Return the map if no explicit padding is pending."""
    _need(not any(x.pad), "another operation than conv2d or pooling after an explicit padding")
    return x


def _factor(x: TileTensor, size: Pair | None, scale: float | list[float] | None) -> int:
    """Whole factor of an upsampling, the same for both sides."""
    if size is None:
        scales = {float(s) for s in (scale if isinstance(scale, list | tuple) else [scale]) if s}
        _need(len(scales) == 1 and min(scales).is_integer(), f"interpolate by {scale}")
        return int(min(scales))
    height, width = x.shape[2:]
    rows, columns = _pair(size)
    _need(
        rows % height == 0 and columns % width == 0 and rows // height == columns // width,
        f"interpolate from {(height, width)} to {(rows, columns)}, which is no whole factor: upsample by "
        f"scale_factor and crop, or pad the image to multiples of {x.stride}",
    )
    return rows // height


def _pair(value: Any) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value) * (2 if len(value) == 1 else 1)
    return pair


def _out_of_place(func: Rule) -> Rule:
    """Find the form of an in-place function that returns a new value."""
    name = name_of(func)
    if name.startswith("__i") and hasattr(Tensor, f"__{name[3:]}"):
        return getattr(Tensor, f"__{name[3:]}")
    if name.endswith("_") and not name.endswith("__"):
        for spot in (torch, F, Tensor):
            if hasattr(spot, name[:-1]):
                return getattr(spot, name[:-1])
    return func


def _need(condition: bool, what: str) -> None:
    if not condition:
        raise NoTileRule(no_rule(what))
