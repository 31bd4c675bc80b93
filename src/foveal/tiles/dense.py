"""Modules that need the whole map: they see the dense map, and what they return is cut into tiles again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from foveal.geometry.layout import Layout
from foveal.ops import compose_tiles, cut_tiles
from foveal.storage.given import need
from foveal.tiles.axes import NCHW, Axes, as_seen, as_stored
from foveal.tiles.extent import at_level, tile_sides
from foveal.tiles.nested import leaves, map_leaves
from foveal.tiles.rules import nchw
from foveal.tiles.tensor import TileTensor, WrongGeometry, pool


class Group(NamedTuple):
    """Images of a batch that have the same finest level.

    Attributes:
        images: Their numbers.
        layout: Their tiles.
        mask: Which of all tiles those are [B].
        level: The finest level, that of their dense map.
    """

    images: list[int]
    layout: Layout
    mask: Tensor
    level: int


def groups(layout: Layout) -> list[Group]:
    """Sort the images of a batch by their finest level."""
    found = []
    for level in sorted(set(layout.finest)):
        images = [n for n, finest in enumerate(layout.finest) if finest == level]
        found.append(Group(images, *layout.of_images(images), level))
    return found


def in_order(parts: list[Tensor], found: list[Group]) -> Tensor:
    """Join what was computed for groups of images, in the order of the batch."""
    if len(found) == 1:
        return parts[0]
    order = torch.tensor([n for group in found for n in group.images], device=parts[0].device).argsort()
    return torch.cat(parts)[order]


def lift(x: TileTensor, tiles: Tensor, group: Group) -> Tensor:
    """Compose the dense map of a group of images from all tiles [B, C, side, side], seen as `x` is."""
    dense = compose_tiles(tiles[group.mask.to(tiles.device)], group.layout, group.level)
    return dense if x.axes == NCHW else as_seen(dense.unflatten(1, x.channels or (1,)), x.axes)


def run_dense(module: nn.Module) -> nn.Module:
    """Let a module see the dense map wherever it is given tiles; what it returns is cut into tiles again.

    For modules that look at the whole map: attention, ... The map has the finest level that occurs in an
    image, so an image that is coarse everywhere gives what the network gives on the reduced image; sides that
    the network took from the shape of a map are given as they are there. With plain tensors the module works
    as before.
    """
    need(module, nn.Module, "module", "a torch.nn.Module, as it is in its network")
    if not isinstance(module.forward, partial):
        module.forward = partial(_through_dense, module)
    return module


def _through_dense(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    forward = partial(type(module).forward, module)
    given = [a for a in leaves([*args, *kwargs.values()]) if isinstance(a, TileTensor)]
    if not given:
        return forward(*args, **kwargs)
    layout = given[0].layout
    pools = {id(a): pool(nchw(a), "run_dense") for a in given}
    found = groups(layout)
    results = []
    for group in found:

        def given_to(x: Any, group: Group = group) -> Any:
            if isinstance(x, TileTensor):
                return lift(x, pools[id(x)], group)
            if isinstance(x, Tensor) and len(found) > 1 and x.ndim and len(x) == layout.images:
                return x[group.images]
            return at_level(group.level, x)

        named = {name: map_leaves(given_to, value) for name, value in kwargs.items()}
        results.append(forward(*map_leaves(given_to, args), **named))
    return lower(given, found, results, tile_sides(leaves([*args, *kwargs.values()])))


def lower(given: list[TileTensor], found: list[Group], results: list[Any], hints: Sequence[int] = ()) -> Any:
    """Cut what a module returned for every group of images, and put the groups together.

    Args:
        given: Maps that the module was given.
        found: Groups of images.
        results: What it returned for each of them.
        hints: Sides that tiles probably have, if several fit.
    """
    first = results[0]

    def part(key: Any) -> Any:
        return lower(given, found, [result[key] for result in results], hints)

    if isinstance(first, list | tuple):
        parts = [part(k) for k in range(len(first))]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    if isinstance(first, dict):
        return type(first)((key, part(key)) for key in first)
    if not isinstance(first, Tensor):
        return first
    fit = _fitting(given, first, found[0], hints)
    if fit is None:
        return in_order(results, found)
    like, axes, side = fit
    parts = []
    for group, out in zip(found, results, strict=True):
        extent = dict(zip("nhw", (len(group.images), *group.layout.extent(side, group.level)), strict=True))
        stored = as_stored(out, axes, extent)
        tiles = cut_tiles(stored.flatten(1, -3), group.layout, side, group.level)
        parts.append(tiles.unflatten(1, stored.shape[1:-2]))
    places = [group.mask[: like.layout.computed].nonzero()[:, 0] for group in found]
    order = torch.cat(places).argsort().to(first.device)
    return like.with_tiles(parts[0] if len(parts) == 1 else torch.cat(parts)[order], axes)


def _fitting(
    given: list[TileTensor], out: Tensor, group: Group, hints: Sequence[int]
) -> tuple[TileTensor, Axes, int] | None:
    """Find how a result is seen, and the side of tiles whose dense map has its size; None if it is no map."""
    layout, level = group.layout, group.level
    for like in given:
        sizes = dict(zip("nhw", (len(group.images), *layout.extent(like.side, level)), strict=True))
        if like.axes != NCHW and out.ndim == like.ndim:
            seen = zip(like.axes, out.shape, strict=True)
            if all(n == torch.Size(sizes[k] for k in axis).numel() for axis, n in seen if axis != "c"):
                return like, like.axes, like.side
    like = given[0]
    if out.ndim != 4 or tuple(out.shape[2:]) == (1, 1) != layout.extent(like.side, level):
        return None
    others = [layout.tile >> k for k in range(layout.tile.bit_length()) if layout.tile % (1 << k) == 0]
    sides = [*(s for s in hints if s in others), *(x.side for x in given), *others]
    fitting = [s for s in sides if layout.extent(s, level) == tuple(out.shape[2:])]
    if not fitting:
        raise WrongGeometry(
            f"a module in `dense_modules` returned a map of {tuple(out.shape[2:])}, which is no whole stride "
            f"of the image of {layout.size[0]}x{layout.size[1]} px",
            "pad the image to multiples of the network's stride, or name a module around it",
        )
    return like, NCHW, fitting[0]
