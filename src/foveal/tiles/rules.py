"""Rules for torch functions on tiles: one per function, keyed by the function object.

Functions that work sample by sample run as they are on the batch of tiles: those here, those along channels
(`foveal.tiles.channels`), and what only changes how the axes are seen (`foveal.tiles.reorder`). Windows first
borrow a halo (`foveal.tiles.windows`, `pooling`, `resize`). Statistics of an image weigh every sample by the
area it stands for (`foveal.tiles.statistics`). What mixes samples in another way has no rule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.ops import cut_tiles
from foveal.tiles.axes import CHANNELS, NCHW, as_stored, describe, permute
from foveal.tiles.tensor import RULES, NoTileRule, TileTensor, WrongGeometry, name_of, no_rule

Rule = Callable[..., Any]
Pair = int | tuple[int, ...] | list[int]


def rule(*functions: Any) -> Callable[[Rule], Rule]:
    """Enter a rule for some torch functions."""

    def enter(rule: Rule) -> Rule:
        for function in functions:
            RULES[function] = rule
        return rule

    return enter


def named(*names: str) -> list[Any]:
    """Find functions of a name wherever torch has them, methods and in-place forms included."""
    spots = (torch, F, Tensor)
    forms = [
        form for name in names for form in (name, f"{name}_", f"__{name}__", f"__i{name}__", f"__r{name}__")
    ]
    found = [getattr(spot, form, None) for spot in spots for form in forms]
    return [function for function in found if callable(function)]  # torch.float is a precision


@rule(
    *named("relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "softplus"),
    *named("hardtanh", "hardswish", "hardsigmoid", "sigmoid", "tanh", "logsigmoid", "softsign", "threshold"),
    *named("clamp", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "abs", "neg", "square", "pow"),
    *named("reciprocal", "erf", "sin", "cos", "dropout", "dropout2d", "detach", "clone", "contiguous"),
    *named("to", "float", "half", "double", "bfloat16"),
)
def per_sample(func: Rule, x: TileTensor, *args: Any, **kwargs: Any) -> TileTensor:
    """Apply to every tile; in-place forms return a new value instead."""
    kwargs.pop("inplace", None)
    kwargs.pop("memory_format", None)
    return unpadded(x).with_tiles(_out_of_place(func)(x.tiles, *args, **kwargs), x.axes)


@rule(*named("prelu"))
def prelu(func: Rule, x: TileTensor, weight: Tensor) -> TileTensor:
    """Apply to every tile, with a slope per channel."""
    return plain(x).with_tiles(F.prelu(x.tiles, weight))


@rule(*named("add", "sub", "mul", "div", "truediv", "maximum", "minimum"), torch.true_divide)
def arithmetic(func: Rule, x: Any, y: Any, **kwargs: Any) -> TileTensor:
    """Combine two maps of the same tiles, or a map with a plain tensor that its shape can be spread to."""
    like = x if isinstance(x, TileTensor) else y
    left, right = (operand(value, like, func) for value in (x, y))
    return like.with_tiles(_out_of_place(func)(left, right, **kwargs), like.axes)


@rule(Tensor.__getitem__)
def take(func: Rule, x: TileTensor, index: Any) -> TileTensor:
    """Take channels; a crop must end where the map ends."""
    index = index if isinstance(index, tuple) else (index,)
    missing = x.ndim - sum(part is not Ellipsis for part in index)
    if Ellipsis in [part if part is Ellipsis else None for part in index]:
        place = next(k for k, part in enumerate(index) if part is Ellipsis)
        index = (*index[:place], *[slice(None)] * missing, *index[place + 1 :])
    need(len(index) <= x.ndim, "indexing that adds axes")
    index = (*index, *[slice(None)] * (x.ndim - len(index)))
    channels, axes = [], []
    for part, axis, size in zip(index, x.axes, x.shape, strict=True):
        if axis == CHANNELS:
            need(isinstance(part, slice | int), "indexing channels by something else than numbers and slices")
            channels.append(part)
        else:
            whole = isinstance(part, slice) and slice(*part.indices(size)) == slice(0, size, 1)
            need(whole, "indexing other than channels")
        if not isinstance(part, int):
            axes.append(axis)
    return unpadded(x).with_tiles(x.tiles[:, *channels], tuple(axes))


@rule(F.batch_norm)  # torch.batch_norm takes its arguments in another order
def batch_norm(
    func: Rule,
    x: TileTensor,
    mean: Tensor | None,
    var: Tensor | None,
    *args: Any,
    **kwargs: Any,
) -> TileTensor:
    """Normalise; statistics in training are over all samples of all tiles that lie in the image."""
    if x.axes != NCHW and (x.axes[1] != CHANNELS or len(x.channels) != 1):
        need(False, f"batch_norm on axes {describe(x.axes)}")
    names = ("weight", "bias", "training", "momentum", "eps")
    settings = dict(zip(names, args, strict=False)) | kwargs
    inside = x.layout.inside(x.side, x.device) if settings.get("training") else None
    if inside is None:
        return unpadded(x).with_tiles(F.batch_norm(x.tiles, mean, var, **settings), x.axes)
    rows = x.tiles.permute(0, 2, 3, 1)
    normal = F.batch_norm(rows[inside], mean, var, **settings)
    filled = torch.zeros_like(rows).index_put((inside,), normal).permute(0, 3, 1, 2)
    return unpadded(x).with_tiles(filled, x.axes)


def operand(value: Any, like: TileTensor, func: Rule) -> Any:
    """Bring an operand to the tiles of `like`."""
    if isinstance(value, TileTensor):
        same_tiles(value, like, name_of(func))
        return value.tiles
    if not isinstance(value, Tensor) or value.ndim == 0:
        return value
    shape = (1,) * (like.ndim - value.ndim) + tuple(value.shape)
    fits = len(shape) == like.ndim and all(
        a == 1 or a == b or (axis == CHANNELS and b == 1)
        for a, b, axis in zip(shape, like.shape, like.axes, strict=True)
    )
    need(fits and not any(like.pad), f"{name_of(func)} of tiles with a plain tensor of {tuple(value.shape)}")
    value = value.reshape(shape)
    samples = [size for size, axis in zip(shape, like.axes, strict=True) if axis not in (CHANNELS, "n")]
    if any(size > 1 for size in samples):
        sizes = [
            a if axis == CHANNELS else b for a, b, axis in zip(shape, like.shape, like.axes, strict=True)
        ]
        return cut_like(value.expand(sizes), like)
    places = [k for k, axis in enumerate(like.axes) if axis in (CHANNELS, "n")]
    images = like.axes.index("n") if "n" in like.axes else None
    if images is not None and shape[images] > 1:
        spread = value.permute(images, *(k for k in range(like.ndim) if k != images))
        spread = spread.reshape(shape[images], *(shape[k] for k in places if k != images), 1, 1)
        return spread[like.layout.image_on(value.device)[: like.layout.computed]]
    return value.reshape(*(shape[k] for k in places if k != images), 1, 1)


def cut_like(value: Tensor, like: TileTensor) -> Tensor:
    """Cut a dense map, with its axes in the order of `like`, into its tiles [B, *channels, side, side]."""
    layout = like.layout
    need(
        len(set(layout.finest)) == 1,
        "a plain map beside tiles, in a batch whose images have different finest levels",
    )
    stored = as_stored(value, like.axes, like.extent)
    channels = stored.shape[1:-2]
    flat = stored.reshape(len(stored), channels.numel(), *stored.shape[-2:])
    tiles = cut_tiles(flat, layout, like.side, layout.finest[0])
    return tiles.reshape(len(tiles), *channels, like.side, like.side)


def same_tiles(value: TileTensor, like: TileTensor, name: str) -> None:
    """Refuse maps that do not lie sample on sample."""
    need(value.layout is like.layout, f"{name} of tiles of different plans")
    need(
        value.side == like.side and not any(value.pad) and not any(like.pad),
        f"{name} of maps with strides {value.stride} and {like.stride}, or with padding",
    )
    if value.axes != like.axes:
        need(False, f"{name} of maps with axes {describe(value.axes)} and {describe(like.axes)}")


def unpadded(x: TileTensor) -> TileTensor:
    """Return the map if no explicit padding is pending."""
    need(not any(x.pad), "another operation than conv2d or pooling after an explicit padding")
    return x


def check_axes(x: TileTensor) -> None:
    """Refuse a map whose axes are not N, C, H, W."""
    if x.axes != NCHW:  # the sentence takes longer to write than a small operation
        need(False, f"an operation on [N, C, H, W] that is given a map whose axes are {describe(x.axes)}")


def plain(x: TileTensor) -> TileTensor:
    """Return the map if no explicit padding is pending, and its axes are N, C, H, W."""
    check_axes(x)
    return unpadded(x)


def nchw(x: TileTensor) -> TileTensor:
    """Return the map with axes N, C, H, W, all its channels in one axis."""
    return unpadded(x).with_tiles(x.tiles.flatten(1, -3) if x.channels else x.tiles[:, None])


def reordered(x: TileTensor, places: list[int]) -> TileTensor:
    """Return the map with its axes in another order."""
    axes, channels = permute(x.axes, places)
    tiles = x.tiles.permute(0, *(k + 1 for k in channels), -2, -1)
    return unpadded(x).with_tiles(tiles, axes)


def pair(value: Any) -> tuple[int, int]:
    """Give one number per side."""
    both = (value, value) if isinstance(value, int) else tuple(value) * (2 if len(value) == 1 else 1)
    return both


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


def need(condition: bool, what: str) -> None:
    """Refuse what has no rule for tiles."""
    if not condition:
        raise NoTileRule(no_rule(what))


def need_geometry(condition: bool, what: str, advice: str) -> None:
    """Refuse sides that do not divide, with advice about image and tile."""
    if not condition:
        raise WrongGeometry(what, advice)


def pad_to(x: TileTensor, step: int) -> str:
    """Advise sides of images that whole steps of a map fit into."""
    return f"pad the image to multiples of {x.stride * step} px"
