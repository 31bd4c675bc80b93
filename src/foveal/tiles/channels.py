"""What functions along channels mean on tiles: they run as they are, on every sample."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.tiles.axes import CHANNELS, channel_axes, describe
from foveal.tiles.rules import Pair, Rule, cut_like, named, need, plain, rule, same_tiles, unpadded
from foveal.tiles.tensor import TileTensor, name_of


@rule(*named("softmax", "log_softmax", "sum", "amax", "amin", "argmax", "var", "std", "chunk", "split"))
def along_channels(func: Rule, x: TileTensor, *args: Any, **kwargs: Any) -> Any:
    """Apply to the channels of every sample."""
    name, position = name_of(func), int(name_of(func) in ("chunk", "split"))
    given = kwargs.get("dim", args[position] if len(args) > position else None)
    dims = [d % x.ndim for d in (given if isinstance(given, list | tuple) else [given]) if d is not None]
    need(
        bool(dims) and all(x.axes[d] == CHANNELS for d in dims),
        f"{name} along another dimension than the channels",
    )
    places = channel_axes(x.axes)
    inner = [places.index(d) + 1 for d in dims]
    kwargs["dim"] = inner if isinstance(given, list | tuple) else inner[0]
    if len(args) > position:
        args = (*args[:position], kwargs.pop("dim"), *args[position + 1 :])
    result = func(unpadded(x).tiles, *args, **kwargs)
    if isinstance(result, Tensor):
        dropped = result.ndim < x.tiles.ndim
        axes = tuple(axis for d, axis in enumerate(x.axes) if not (dropped and d in dims))
        return x.with_tiles(result, axes)
    return type(result)(x.with_tiles(part, x.axes) for part in result)


@rule(*named("glu"))
def glu(func: Rule, x: TileTensor, dim: int = -1) -> TileTensor:
    """Multiply one half of the channels by the sigmoid of the other."""
    first, second = along_channels(torch.chunk, x, 2, dim)
    return first * second.sigmoid()


@rule(*named("channel_shuffle"))
def channel_shuffle(func: Rule, x: TileTensor, groups: int) -> TileTensor:
    """Take channels of all groups in turn."""
    return plain(x).with_tiles(F.channel_shuffle(x.tiles, groups))


@rule(*named("unbind"))
def unbind(func: Rule, x: TileTensor, dim: int = 0) -> tuple[TileTensor, ...]:
    """Take the channels apart."""
    need(x.axes[dim % x.ndim] == CHANNELS, "unbind along another dimension than the channels")
    inner = channel_axes(x.axes).index(dim % x.ndim) + 1
    axes = tuple(axis for d, axis in enumerate(x.axes) if d != dim % x.ndim)
    return tuple(unpadded(x).with_tiles(part, axes) for part in x.tiles.unbind(inner))


@rule(torch.cat, torch.concat, torch.concatenate)
def concatenate(func: Rule, maps: list[Any], dim: int = 0) -> TileTensor:
    """Join maps along channels; a plain tensor of the maps' shape is cut into tiles."""
    like = next(x for x in maps if isinstance(x, TileTensor))
    place = dim % like.ndim
    need(like.axes[place] == CHANNELS, "cat along another dimension than the channels")
    tiles = []
    for x in maps:
        if isinstance(x, TileTensor):
            same_tiles(x, like, "cat")
            tiles.append(x.tiles)
            continue
        fits = [*x.shape[:place], *x.shape[place + 1 :]] == [*like.shape[:place], *like.shape[place + 1 :]]
        need(x.ndim == like.ndim and fits, f"cat of tiles with a plain tensor of {tuple(x.shape)}")
        tiles.append(cut_like(x, unpadded(like)))
    return like.with_tiles(torch.cat(tiles, channel_axes(like.axes).index(place) + 1), like.axes)


@rule(torch.stack)
def stack(func: Rule, maps: list[Any], dim: int = 0) -> TileTensor:
    """Join maps along a new axis of channels."""
    need(all(isinstance(x, TileTensor) for x in maps), "stack of tiles with plain tensors")
    return concatenate(torch.cat, [x.unsqueeze(dim) for x in maps], dim)


@rule(F.layer_norm)
def layer_norm(
    func: Rule,
    x: TileTensor,
    normalized_shape: Pair,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> TileTensor:
    """Normalise the last axes, if they are channels."""
    sizes = [normalized_shape] if isinstance(normalized_shape, int) else list(normalized_shape)
    count = len(sizes)
    need(
        all(axis == CHANNELS for axis in x.axes[-count:]),
        f"layer_norm over the last {count} of the axes {describe(x.axes)}, which mixes samples",
    )
    rows, back = _channels_last(x)
    return back(F.layer_norm(rows, sizes, weight, bias, eps))


@rule(F.linear)
def linear(func: Rule, x: TileTensor, weight: Tensor, bias: Tensor | None = None) -> TileTensor:
    """Mix the channels of every sample, if they are the last axis."""
    need(x.axes[-1] == CHANNELS, f"linear along the last of the axes {describe(x.axes)}, which mixes samples")
    rows, back = _channels_last(x)
    return back(F.linear(rows, weight, bias))


@rule(*named("matmul"))
def matmul(func: Rule, x: Any, y: Any) -> TileTensor:
    """Mix the channels of every sample by a matrix."""
    fits = isinstance(x, TileTensor) and isinstance(y, Tensor) and y.ndim == 2
    need(fits, "matmul of two maps, which mixes samples,")
    return linear(F.linear, x, y.T)


def _channels_last(x: TileTensor) -> tuple[Tensor, Any]:
    """Return tiles [B, side, side, *channels], and what takes them back."""
    count = len(x.channels)

    def back(rows: Tensor) -> TileTensor:
        return x.with_tiles(rows.permute(0, *range(3, 3 + count), 1, 2), x.axes)

    return unpadded(x).tiles.permute(0, count + 1, count + 2, *range(1, count + 1)), back
