"""Modules that need the whole map: they see the dense map, and what they return is cut into tiles again."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from foveal.geometry.layout import Layout
from foveal.ops import compose_tiles, cut_tiles
from foveal.tiles.nested import leaves, map_leaves
from foveal.tiles.tensor import NoTileRule, TileTensor, pool


def run_dense(module: nn.Module) -> nn.Module:
    """Let a module see the dense map wherever it is given tiles; what it returns is cut into tiles again.

    For modules that look at the whole map: pyramid pooling, attention, ... The map has the finest level that
    occurs in an image, so an image that is coarse everywhere gives what the network gives on the reduced
    image. With plain tensors the module works as before.
    """
    if not isinstance(module.forward, partial):
        module.forward = partial(_through_dense, module)
    return module


def _through_dense(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    forward = partial(type(module).forward, module)
    given = [a for a in leaves([*args, *kwargs.values()]) if isinstance(a, TileTensor)]
    if not given:
        return forward(*args, **kwargs)
    first = given[0]
    pools = {id(a): pool(a, "run_dense") for a in given}
    layout = first.layout
    results = []
    groups = [[n for n, f in enumerate(layout.finest) if f == level] for level in sorted(set(layout.finest))]
    for images in groups:
        part, mask = layout.of_images(images)
        base = layout.finest[images[0]]

        def lift(x: Any, part: Layout = part, mask: Tensor = mask, base: int = base) -> Any:
            return (
                compose_tiles(pools[id(x)][mask.to(x.device)], part, base) if isinstance(x, TileTensor) else x
            )

        out = forward(*map_leaves(lift, args), **{name: map_leaves(lift, a) for name, a in kwargs.items()})
        results.append((images, part, base, out))
    return _lower(first, results)


def _lower(like: TileTensor, results: list[tuple[list[int], Layout, int, Any]]) -> Any:
    """Cut what a module returned for every group of images, and put the groups together."""
    first = results[0][3]
    if isinstance(first, list | tuple):
        parts = [[(i, p, b, out[k]) for i, p, b, out in results] for k in range(len(first))]
        return type(first)(_lower(like, part) for part in parts)
    side = _side_of(first, results[0][1], results[0][2], like.side)
    layout = like.layout
    if side is None:
        order = torch.tensor([n for images, *_ in results for n in images], device=first.device).argsort()
        return torch.cat([out for *_, out in results])[order]
    tiles = first.new_empty(layout.computed, first.shape[1], side, side)
    for images, part, base, out in results:
        chosen = torch.isin(layout.image[: layout.computed], torch.tensor(images)).to(out.device)
        tiles = (
            tiles.masked_scatter(
                chosen[:, None, None, None].expand_as(tiles), cut_tiles(out, part, side, base).contiguous()
            )
            if len(results) > 1
            else cut_tiles(out, part, side, base)
        )
    return like.with_tiles(tiles)


def _side_of(out: Tensor, layout: Layout, base: int, side: int) -> int | None:
    """Find the side of tiles whose dense map has the size of a result; None if it is no map."""
    if out.ndim != 4 or tuple(out.shape[2:]) == (1, 1) != layout.extent(side, base):
        return None
    sides = [
        side,
        *(layout.tile >> k for k in range(layout.tile.bit_length()) if layout.tile % (1 << k) == 0),
    ]
    fitting = [s for s in sides if layout.extent(s, base) == tuple(out.shape[2:])]
    if not fitting:
        raise NoTileRule(
            f"a module in `dense_modules` returned a map of {tuple(out.shape[2:])}, which is no whole "
            f"stride of the image of {layout.size[0]}x{layout.size[1]} px"
        )
    return fitting[0]
