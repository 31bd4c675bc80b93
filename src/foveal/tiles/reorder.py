"""What permuting and reshaping mean on tiles: only the order in which axes are seen changes."""

from __future__ import annotations

from typing import Any

from foveal.tiles.axes import CHANNELS, MixesSamples, channel_axes, describe, reshape
from foveal.tiles.rules import Rule, named, need, reordered, rule, unpadded
from foveal.tiles.tensor import TileTensor, name_of


@rule(*named("permute"))
def permute(func: Rule, x: TileTensor, *dims: Any) -> TileTensor:
    """See the axes in another order."""
    return reordered(x, [d % x.ndim for d in _numbers(dims)])


@rule(*named("transpose", "swapaxes", "swapdims"))
def transpose(func: Rule, x: TileTensor, dim0: int, dim1: int) -> TileTensor:
    """Swap two axes."""
    places = list(range(x.ndim))
    places[dim0], places[dim1] = places[dim1], places[dim0]
    return reordered(x, places)


@rule(*named("movedim", "moveaxis"))
def movedim(func: Rule, x: TileTensor, source: Any, destination: Any) -> TileTensor:
    """Move axes to other places; the others keep their order."""
    moved = [d % x.ndim for d in _numbers((source,))]
    goals = [d % x.ndim for d in _numbers((destination,))]
    rest = iter(d for d in range(x.ndim) if d not in moved)
    goal = dict(zip(goals, moved, strict=True))
    return reordered(x, [goal[k] if k in goal else next(rest) for k in range(x.ndim)])


@rule(*named("view", "reshape"))
def view(func: Rule, x: TileTensor, *shape: Any, **kwargs: Any) -> TileTensor:
    """See axes joined or taken apart, if every axis still holds whole samples or channels alone."""
    sizes = _numbers((*shape, *kwargs.values()))
    need(all(isinstance(size, int) for size in sizes), f"{name_of(func)} as another type")
    try:
        axes, channels = reshape(x.axes, x.channels, x.extent, sizes)
    except MixesSamples as error:
        what = f"{name_of(func)} of axes {describe(x.axes)} to {tuple(map(int, sizes))}"
        need(False, f"{what}, where {error},")
    return unpadded(x).with_tiles(x.tiles.reshape(len(x.tiles), *channels, x.side, x.side), axes)


@rule(*named("flatten"))
def flatten(func: Rule, x: TileTensor, start_dim: int = 0, end_dim: int = -1) -> TileTensor:
    """Join neighbouring axes."""
    first, last = start_dim % x.ndim, end_dim % x.ndim
    size = x.shape[first : last + 1].numel()
    return view(func, x, [*x.shape[:first], size, *x.shape[last + 1 :]])


@rule(*named("unflatten"))
def unflatten(func: Rule, x: TileTensor, dim: int, sizes: Any) -> TileTensor:
    """Take an axis apart."""
    place, wanted = dim % x.ndim, list(sizes)
    known = 1
    for size in wanted:
        known *= 1 if size == -1 else size
    wanted = [x.shape[place] // known if size == -1 else size for size in wanted]
    return view(func, x, [*x.shape[:place], *wanted, *x.shape[place + 1 :]])


@rule(*named("unsqueeze"))
def unsqueeze(func: Rule, x: TileTensor, dim: int) -> TileTensor:
    """Add an axis of one channel."""
    place = dim % (x.ndim + 1)
    axes = (*x.axes[:place], CHANNELS, *x.axes[place:])
    inner = channel_axes(axes).index(place) + 1
    return unpadded(x).with_tiles(x.tiles.unsqueeze(inner), axes)


@rule(*named("squeeze"))
def squeeze(func: Rule, x: TileTensor, dim: int | None = None) -> TileTensor:
    """Drop an axis of one channel; any other axis stays, as in a dense map with more than one sample."""
    need(dim is not None, "squeeze without a dimension")
    place = (dim or 0) % x.ndim
    need(x.axes[place] == CHANNELS, "squeeze of another dimension than the channels")
    inner = channel_axes(x.axes).index(place)
    if x.channels[inner] > 1:
        return x
    axes = (*x.axes[:place], *x.axes[place + 1 :])
    return unpadded(x).with_tiles(x.tiles.squeeze(inner + 1), axes)


def _numbers(values: Any) -> list[Any]:
    """List numbers that are given one by one or as a list."""
    found = list(values)
    return list(found[0]) if len(found) == 1 and isinstance(found[0], list | tuple) else found
