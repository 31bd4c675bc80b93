"""Sums and products of maps, vectors and numbers, statistics of images, and joined maps, as steps."""

from __future__ import annotations

import operator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from foveal.fusion.layers import pair
from foveal.program.builder import NotCompiled
from foveal.program.graph import Graph, Value, step
from foveal.program.spec import (
    ADD,
    BINS,
    COMPOSE,
    CONCAT,
    GRID_POOL,
    MEAN,
    MULTIPLY,
    OFFSET,
    TILED,
    WHOLE,
)
from foveal.program.step_layers import affine
from foveal.program.step_windows import average_blocks

SUMS = (operator.add, operator.iadd, torch.add, "add", "add_")
DIFFERENCES = (operator.sub, operator.isub, torch.sub, "sub", "sub_")
PRODUCTS = (operator.mul, operator.imul, torch.mul, "mul", "mul_")
QUOTIENTS = (operator.truediv, torch.div, "div", "div_")
ANY_RANK = 4
"""Axes of a map as layers see it."""


@step(*SUMS, *DIFFERENCES, *PRODUCTS, *QUOTIENTS)
def arithmetic(g: Graph, node: fx.Node) -> Value:
    """Combine two maps, or a map with numbers."""
    if len(node.args) != 2 or node.kwargs:
        raise NotCompiled(f"'{node.name}' scales one of its operands")
    one, two = node.args
    if isinstance(one, fx.Node) and isinstance(two, fx.Node) and one in g.values and two in g.values:
        return _of_maps(g, node, one, two)
    given, other = (one, two) if isinstance(one, fx.Node) and one in g.values else (two, one)
    value, numbers = g.value(given, f"an operand of '{node.name}'"), g.constant(other)
    number = None if numbers is None else _per_channel(g, node, value, numbers)
    if number is None or (node.target in QUOTIENTS and given is two):
        raise NotCompiled(f"'{node.name}' combines a map with something else than numbers per channel")
    unit = torch.ones_like(number)
    if node.target in PRODUCTS:
        scale, shift = number, 0 * unit
    elif node.target in QUOTIENTS:
        scale, shift = 1 / number, 0 * unit
    elif node.target in SUMS:
        scale, shift = unit, number
    else:
        scale, shift = (unit, -number) if given is one else (-unit, number)
    return Value(affine(g, node.name, value.map, scale, shift), value.axes)


@step(operator.neg, torch.neg, "neg")
def negative(g: Graph, node: fx.Node) -> Value:
    """Change the sign."""
    value = g.value(node.args[0], f"the input of '{node.name}'")
    unit = torch.ones(g.builder.maps[value.map].channels)
    return Value(affine(g, node.name, value.map, -unit, 0 * unit), value.axes)


def _per_channel(g: Graph, node: fx.Node, value: Value, numbers: Tensor) -> Tensor | None:
    """Give numbers that a map is combined with as one per channel; None if they differ among samples."""
    channels = g.builder.maps[value.map].channels
    axis = len(value.axes) - 1 - value.axes.index("c")
    sizes = list(numbers.shape)[::-1]
    if len(sizes) > len(value.axes) or g.shape(node) != g.shape(_map_of(g, node)):
        return None
    if any(size != 1 for k, size in enumerate(sizes) if k != axis):
        return None
    return numbers.flatten().expand(channels).double() if numbers.numel() in (1, channels) else None


def _map_of(g: Graph, node: fx.Node) -> fx.Node:
    return next(a for a in node.args if isinstance(a, fx.Node) and a in g.values)


def _of_maps(g: Graph, node: fx.Node, one: fx.Node, two: fx.Node) -> Value:
    if node.target in QUOTIENTS:
        raise NotCompiled(f"'{node.name}' divides a map by a map")
    if node.target in PRODUCTS or node.target in SUMS:
        if g.shape(one) != g.shape(node):  # the larger one first
            one, two = two, one
    a, b = (g.value(x, f"an operand of '{node.name}'") for x in (one, two))
    if node.target in DIFFERENCES:
        unit = torch.ones(g.builder.maps[b.map].channels)
        b = Value(affine(g, f"{node.name}.negative", b.map, -unit, 0 * unit), b.axes)
    product = node.target in PRODUCTS
    if g.shape(one) == g.shape(two) and a.axes == b.axes and _places(g, a.map) == _places(g, b.map):
        out = g.like(a.map)
        g.builder.add_step(node.name, MULTIPLY if product else ADD, a.map, out, other=b.map)
        return Value(out, a.axes)
    samples = g.shape(two)[2:] == (1, 1) and g.is_vector(b.map) and g.shape(two)[1] == g.shape(one)[1]
    single = g.shape(two)[1:2] == (1,) and _places(g, a.map) == _places(g, b.map)
    fits = g.shape(one) == g.shape(node) and len(g.shape(two)) == ANY_RANK and a.axes == b.axes
    if not fits or not (samples or single) or g.builder.maps[a.map].kind == BINS:
        raise NotCompiled(f"'{node.name}' combines maps of different shapes")
    out = g.like(a.map)
    g.builder.add_step(node.name, MULTIPLY if product else OFFSET, a.map, out, other=b.map)
    return Value(out, a.axes)


def _places(g: Graph, number: int) -> tuple[object, ...]:
    m = g.builder.maps[number]
    return m.kind, m.stride, m.grid, m.columns, g.builder.sides(number)


@step(nn.AdaptiveAvgPool2d)
def pool_layer(g: Graph, node: fx.Node) -> Value:
    """Average over the parts of a grid."""
    return pool(g, node, pair(g.module(node).output_size))


@step(F.adaptive_avg_pool2d)
def pool_call(g: Graph, node: fx.Node) -> Value:
    """Average over the parts of a grid, or to the size of a coarser map."""
    size = node.args[1] if len(node.args) > 1 else node.kwargs["output_size"]
    if not g.inside and any(isinstance(side, fx.Node) for side in pair(size)):
        return _pool_to_map(g, node)
    return pool(g, node, pair(g.argument(node, 1, "output_size")))


def _pool_to_map(g: Graph, node: fx.Node) -> Value:
    """Average blocks of samples, as many as a map of a coarser stride has."""
    given = g.map(node.args[0], f"the input of '{node.name}'")
    before, after = g.shape(node.args[0])[2:], g.shape(node)[2:]
    factors = {b / a for b, a in zip(before, after, strict=True)}
    factor = factors.pop()
    if factors or not factor.is_integer() or g.builder.maps[given].kind != TILED:
        raise NotCompiled(f"'{node.name}' averages to a size that is no whole part of the map's")
    return average_blocks(g, node, given, (int(factor), int(factor)), int(factor), (0, 0))


@step(torch.mean, "mean")
def mean(g: Graph, node: fx.Node) -> Value:
    """Average over the image."""
    given, dims = node.args[0], g.argument(node, 1, "dim")
    axes = {
        d % len(g.shape(given)) for d in (dims if isinstance(dims, list | tuple) else [dims]) if d is not None
    }
    if axes != {2, 3} or len(g.shape(given)) != ANY_RANK:
        raise NotCompiled(f"'{node.name}' averages over something else than the image")
    vector = pool(g, node, (1, 1))
    return vector if len(g.shape(node)) == ANY_RANK else replace(vector, axes=("n", "c"))


def pool(g: Graph, node: fx.Node, grid: tuple[Any, Any]) -> Value:
    """Average over the parts of a grid: over all samples by their area, or over those of the whole map."""
    given = g.map(node.args[0], f"the input of '{node.name}'")
    source = g.builder.maps[given]
    if source.kind == WHOLE:
        return _pool_whole(g, node, given)
    if source.kind != TILED or not all(isinstance(side, int) for side in grid):
        raise NotCompiled(f"'{node.name}' averages something else than a map of the image")
    name = str(node.target)
    out = g.builder.add_map(source.channels, source.stride, BINS, grid[0], grid[1])
    if grid == (1, 1):
        g.builder.add_step(name, MEAN, given, out)
    else:
        g.builder.add_step(name, GRID_POOL, composed(g, given), out)
    return Value(out)


def _pool_whole(g: Graph, node: fx.Node, given: int) -> Value:
    """Average over the parts of a whole map, as many as the result has samples."""
    source, sides = g.builder.maps[given], g.sides(node)
    if sides == g.builder.sides(given):
        return Value(given)
    if (sides.up, sides.least) == (0, 1):
        out = g.builder.add_map(source.channels, source.stride, BINS, 1, 1)
    else:
        out = g.builder.add_map(source.channels, source.stride, WHOLE, sides=sides)
    g.builder.add_step(g.name(node), GRID_POOL, given, out)
    return Value(out)


def composed(g: Graph, given: int) -> int:
    """Compose the whole map of a map in tiles, once."""
    if given not in g.whole:
        m = g.builder.maps[given]
        g.whole[given] = g.builder.add_map(m.channels, m.stride, WHOLE)
        g.builder.add_step(f"map{given}.compose", COMPOSE, given, g.whole[given])
    return g.whole[given]


@step(torch.cat, torch.concat)
def concat(g: Graph, node: fx.Node) -> Value:
    """Join maps along the channels."""
    parts, dim = g.argument(node, 0, "tensors"), g.argument(node, 1, "dim", 0)
    parts = [part for part in parts if not isinstance(part, fx.Node) or 0 not in g.shape(part)]
    values = [g.value(part, f"a part of '{node.name}'") for part in parts if not isinstance(part, tuple)]
    axes = {v.axes for v in values}
    if len(axes) != 1 or len(values) != len([p for p in parts if not isinstance(p, tuple)]):
        raise NotCompiled(f"'{node.name}' joins maps that are seen differently")
    seen = axes.pop()
    if seen[dim % len(seen)] != "c":
        raise NotCompiled(f"'{node.name}' joins maps along another dimension than the channels")
    if len({_places(g, v.map) for v in values}) != 1:
        raise NotCompiled(f"'{node.name}' joins maps of different strides")
    channels = [g.builder.maps[v.map].channels for v in values]
    out = g.like(values[0].map, channels=sum(channels))
    for k, v in enumerate(values):
        g.builder.add_step(f"{node.name}.{k}", CONCAT, v.map, out, at=sum(channels[:k]))
    return Value(out, seen)


@step(torch.stack)
def stack(g: Graph, node: fx.Node) -> None:
    """Note maps that are summed next."""
    g.stacked[node] = list(node.args[0])  # type: ignore[arg-type]


@step(torch.sum, "sum")
def total(g: Graph, node: fx.Node) -> Value:
    """Add maps that were stacked."""
    stacked = g.stacked.get(node.args[0], [])  # type: ignore[arg-type]
    dims = g.argument(node, 1, "dim"), g.argument(node.args[0], 1, "dim", 0)  # type: ignore[arg-type]
    if not stacked or dims[0] not in (dims[1], [dims[1]], (dims[1],)):
        raise NotCompiled(f"'{node.name}' sums something else than stacked maps")
    values = [g.value(part, f"a summand of '{node.name}'") for part in stacked]
    if len({(v.axes, _places(g, v.map), g.builder.maps[v.map].channels) for v in values}) != 1:
        raise NotCompiled(f"'{node.name}' sums maps of different shapes")
    found = values[0].map
    for k, value in enumerate(values[1:]):
        out = g.like(found)
        g.builder.add_step(f"{node.name}.{k}", ADD, found, out, other=value.map)
        found = out
    return Value(found, values[0].axes)
