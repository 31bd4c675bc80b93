"""Rules for torch functions on tiles: one per function, keyed by the function object.

Functions that work sample by sample run as they are on the batch of tiles. Windows (convolution, pooling,
bilinear upsampling) first borrow a halo, see `foveal.tiles.windows`. What looks at the whole map has no rule,
except the global mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.geometry.area import areas
from foveal.tiles.tensor import RULES, NoTileRule, TileTensor, name_of, no_rule

Rule = Callable[..., Any]
Pair = int | tuple[int, ...] | list[int]


def rule(*functions: Any) -> Callable[[Rule], Rule]:
    """Enter a rule for some torch functions."""

    def enter(rule: Rule) -> Rule:
        for function in functions:
            RULES[function] = rule
        return rule

    return enter


def _named(*names: str) -> list[Any]:
    """Find functions of a name wherever torch has them, methods and in-place forms included."""
    spots = (torch, F, Tensor)
    forms = [
        form for name in names for form in (name, f"{name}_", f"__{name}__", f"__i{name}__", f"__r{name}__")
    ]
    found = [getattr(spot, form, None) for spot in spots for form in forms]
    return [function for function in found if callable(function)]  # torch.float is a precision


@rule(
    *_named(
        "relu",
        "relu6",
        "leaky_relu",
        "elu",
        "celu",
        "selu",
        "gelu",
        "silu",
        "mish",
        "softplus",
        "prelu",
        "threshold",
    ),
    *_named("hardtanh", "hardswish", "hardsigmoid", "sigmoid", "tanh", "logsigmoid"),
    *_named("clamp", "exp", "log", "sqrt", "rsqrt", "abs", "neg", "square", "pow", "reciprocal"),
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
    need(dim in (1, -3), "cat along another dimension than the channels")
    for x in maps:
        need(isinstance(x, TileTensor), "cat of tiles with plain tensors")
    return maps[0].with_tiles(torch.cat([_operand(x, maps[0], func) for x in maps], 1))


@rule(*_named("softmax", "log_softmax", "sum", "amax", "argmax", "chunk", "split"))
def along_channels(func: Rule, x: TileTensor, *args: Any, **kwargs: Any) -> Any:
    """Apply to the channels of every sample."""
    position = 1 if name_of(func) in ("chunk", "split") else 0
    dim = kwargs.get("dim", args[position] if len(args) > position else None)
    need(dim in (1, -3, [1], (1,)), f"{name_of(func)} along another dimension than the channels")
    result = func(plain(x).tiles, *args, **kwargs)
    if isinstance(result, Tensor):
        need(result.ndim == 4, f"{name_of(func)} that drops the channels")
        return x.with_tiles(result)
    return type(result)(x.with_tiles(part) for part in result)


@rule(Tensor.__getitem__)
def take(func: Rule, x: TileTensor, index: Any) -> TileTensor:
    """Take channels; a crop must end where the map ends."""
    index = index if isinstance(index, tuple) else (index,)
    for place, part in enumerate(index):
        if part is Ellipsis:
            index = (*index[:place], *[slice(None)] * (5 - len(index)), *index[place + 1 :])
            break
    whole = [
        slice(*part.indices(n)) == slice(0, n, 1) if isinstance(part, slice) else False
        for part, n in zip(index, x.shape, strict=False)
    ]
    channels = index[1] if len(index) > 1 else slice(None)
    need(all(whole[:1] + whole[2:]) and isinstance(channels, slice), "indexing other than channels")
    return plain(x).with_tiles(x.tiles[:, channels])


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
    names = ("weight", "bias", "training", "momentum", "eps")
    settings = dict(zip(names, args, strict=False)) | kwargs
    inside = x.layout.inside(x.side, x.device) if settings.get("training") else None
    if inside is None:
        return plain(x).with_tiles(F.batch_norm(x.tiles, mean, var, **settings))
    rows = x.tiles.permute(0, 2, 3, 1)
    normal = F.batch_norm(rows[inside], mean, var, **settings)
    return plain(x).with_tiles(torch.zeros_like(rows).index_put((inside,), normal).permute(0, 3, 1, 2))


@rule(F.adaptive_avg_pool2d)
def adaptive_avg_pool2d(func: Rule, x: TileTensor, output_size: Pair) -> Tensor:
    """Average over the whole image, which gives a plain tensor [N, C, 1, 1]."""
    need(pair(output_size) == (1, 1), f"adaptive_avg_pool2d to {output_size} (only the global mean has one)")
    return global_mean(x)[:, :, None, None]


@rule(torch.mean, Tensor.mean)
def mean(func: Rule, x: TileTensor, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Any:
    """Average over the whole image or over the channels."""
    dims = {d % 4 for d in (dim if isinstance(dim, list | tuple) else [dim])} if dim is not None else set()
    if dims == {2, 3}:
        result = global_mean(x)
        return result[:, :, None, None] if keepdim else result
    need(dims == {1} and keepdim, "mean other than over the image, or over the channels with keepdim")
    return plain(x).with_tiles(x.tiles.mean(1, keepdim=True))


def global_mean(x: TileTensor) -> Tensor:
    """Mean over the image [N, C]: every sample of a tile counts with the area it stands for."""
    plain(x)
    kept = x.tape.exchange("global mean", x.tiles) if x.tape else None
    layout = x.layout
    pool = x.tiles if kept is None else torch.cat([x.tiles, kept])
    area = areas(layout, x.side, pool.device).to(pool.dtype)
    sums = torch.einsum("bchw,bhw->bc", pool.masked_fill(area[:, None] == 0, 0.0), area)
    image = layout.image_on(pool.device)
    total = pool.new_zeros(layout.images, pool.shape[1]).index_add(0, image, sums)
    norm = pool.new_zeros(layout.images).index_add(0, image, area.sum((1, 2)))
    return total / norm.clamp(min=1)[:, None]


def _operand(value: Any, like: TileTensor, func: Rule) -> Any:
    """Bring an operand to the tiles of `like`."""
    if isinstance(value, TileTensor):
        need(value.layout is like.layout, f"{name_of(func)} of tiles of different plans")
        need(
            value.side == like.side and not any(value.pad) and not any(like.pad),
            f"{name_of(func)} of maps with strides {value.stride} and {like.stride}, or with padding",
        )
        return value.tiles
    if not isinstance(value, Tensor) or value.ndim == 0:
        return value
    need(
        value.ndim >= 3 and tuple(value.shape[-2:]) == (1, 1),
        f"{name_of(func)} of tiles with a plain tensor of {tuple(value.shape)}",
    )
    if value.ndim == 4 and value.shape[0] > 1:
        return value[like.layout.image_on(value.device)[: like.layout.computed]]
    return value


def plain(x: TileTensor) -> TileTensor:
    """Return the map if no explicit padding is pending."""
    need(not any(x.pad), "another operation than conv2d or pooling after an explicit padding")
    return x


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
