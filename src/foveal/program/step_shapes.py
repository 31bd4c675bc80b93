"""Enlarging, cropping, and seeing the axes of maps in another order, as steps or as none at all."""

from __future__ import annotations

import math
import operator
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from foveal.program.builder import NotCompiled
from foveal.program.graph import Graph, Value, step
from foveal.program.spec import (
    ALIGN_CORNERS,
    BINS,
    BY_FACTOR,
    CUT,
    ENLARGE,
    GRID_SPREAD,
    NEAREST,
    REPEAT,
    RESAMPLE,
    SLICE,
    TILED,
    WHOLE,
)
from foveal.tiles.axes import NCHW, MixesSamples, permute, reshape


@step(nn.Upsample)
def upsample(g: Graph, node: fx.Node) -> Value:
    """Enlarge, by a factor or to a size."""
    m = g.module(node)
    return resize(g, node, m.size, m.scale_factor, m.mode, bool(m.align_corners))


@step(F.interpolate)
def interpolate(g: Graph, node: fx.Node) -> Value:
    """Enlarge, by a factor or to a size."""
    names = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor", "antialias")
    given = {name: g.argument(node, k + 1, name) for k, name in enumerate(names)}
    if given["antialias"] or given["recompute_scale_factor"]:
        raise NotCompiled(f"'{g.name(node)}' is no bilinear or nearest enlargement by a whole factor")
    mode = given["mode"] or "nearest"
    return resize(g, node, given["size"], given["scale_factor"], mode, bool(given["align_corners"]))


def resize(g: Graph, node: fx.Node, size: Any, scale: Any, mode: str, corners: bool) -> Value:
    """Enlarge a map, or spread a grid over the image."""
    given = g.map(node.args[0], f"the input of '{node.name}'")
    source = g.builder.maps[given]
    if g.inside:
        return _resize_whole(g, node, given, size is None, scale, mode, corners)
    if source.kind == BINS:
        return _spread(g, node, given, mode, corners)
    before, after = g.shape(node.args[0])[2:], g.shape(node)[2:]
    factors = {b / a for a, b in zip(before, after, strict=True)}
    factor = factors.pop() if len(factors) == 1 else 0.0
    if factor == 1 and size is not None:
        return Value(given)
    if size is not None and factor and (1 / factor).is_integer():
        return _reduce(g, node, given, int(1 / factor), mode, corners)
    fits = factor.is_integer() and factor >= 1 and source.stride % int(factor) == 0
    if mode not in ("bilinear", "nearest") or not fits:
        raise NotCompiled(f"'{g.name(node)}' is no bilinear or nearest enlargement by a whole factor")
    out = g.builder.add_map(source.channels, source.stride // int(factor))
    fields = {"factor": int(factor)}
    kind = {"bilinear": ENLARGE, "nearest": REPEAT}[mode]
    if size is not None or corners:
        kind, by = RESAMPLE, 0 if size is not None else BY_FACTOR
        fields["function"] = by | NEAREST * (mode == "nearest") | ALIGN_CORNERS * corners
    g.builder.add_step(
        str(node.target if node.op == "call_module" else node.name), kind, given, out, **fields
    )
    return Value(out, cropped=size is None)


def _resize_whole(  # noqa: PLR0913
    g: Graph, node: fx.Node, given: int, by_factor: bool, scale: Any, mode: str, corners: bool
) -> Value:
    """Bring a whole map, or a vector, to other sides."""
    source, sides = g.builder.maps[given], g.sides(node)
    if source.kind != BINS and sides == g.builder.sides(given):
        return Value(given)
    factors = {float(n) for n in (scale if isinstance(scale, list | tuple) else (scale or 1,))}
    if mode not in ("bilinear", "nearest") or (by_factor and not all(n.is_integer() for n in factors)):
        raise NotCompiled(
            f"'{g.name(node)}' is no bilinear or nearest resizing to a size or by a whole factor"
        )
    out = g.builder.add_map(source.channels, source.stride, WHOLE, sides=sides)
    how = ALIGN_CORNERS * corners
    if source.kind == BINS and (mode == "bilinear" or g.is_vector(given)):
        g.builder.add_step(g.name(node), GRID_SPREAD, given, out, function=how)
    elif source.kind == BINS:
        raise NotCompiled(f"'{g.name(node)}' spreads a grid otherwise than bilinearly")
    else:
        how |= NEAREST * (mode == "nearest")
        g.builder.add_step(g.name(node), RESAMPLE, given, out, factor=0, function=how)
    return Value(out)


def _reduce(g: Graph, node: fx.Node, given: int, factor: int, mode: str, corners: bool) -> Value:
    """Bring a map to the size of one of a coarser stride."""
    if mode not in ("bilinear", "nearest"):
        raise NotCompiled(f"'{node.name}' reduces a map otherwise than bilinearly or by the nearest sample")
    out = g.like(given, stride=factor)
    how = NEAREST * (mode == "nearest") | ALIGN_CORNERS * corners
    g.builder.add_step(node.name, RESAMPLE, given, out, factor=0, function=how)
    return Value(out)


def _spread(g: Graph, node: fx.Node, given: int, mode: str, corners: bool) -> Value:
    """Spread a grid, or the vector of an image, over a map whose size the network has computed."""
    source, sides = g.builder.maps[given], g.shape(node)[2:]
    strides = {-(-whole // side) for whole, side in zip(g.size, sides, strict=True)}
    if len(strides) != 1 or any(n % side for n, side in zip(g.size, sides, strict=True)):
        raise NotCompiled(f"'{node.name}' spreads a grid over what is no map of a whole stride")
    stride, name = strides.pop(), node.name
    out = g.builder.add_map(source.channels, stride)
    if g.is_vector(given):
        g.builder.add_step(name, GRID_SPREAD, given, out)
        return Value(out)
    if stride != source.stride or mode != "bilinear":
        raise NotCompiled(f"'{name}' spreads a grid otherwise than bilinearly over the map that it is of")
    whole = g.builder.add_map(source.channels, stride, WHOLE)
    g.builder.add_step(name, GRID_SPREAD, given, whole, function=ALIGN_CORNERS * corners)
    g.builder.add_step(f"{name}.cut", CUT, whole, out)
    return Value(out)


@step(torch.split, "split", torch.chunk, "chunk")
def split(g: Graph, node: fx.Node) -> None:
    """Note which channels every part has; what takes a part becomes a step."""
    axis = g.argument(node, 2, "dim", 0)
    if axis not in (1, 1 - len(g.shape(node.args[0]))):
        raise NotCompiled(f"'{node.name}' splits a map otherwise than by its channels")
    ends = list(accumulate((part.shape[1] for part in g.numbers[node]), initial=0))
    g.apart[node] = [slice(*both) for both in pairwise(ends)]


@step(operator.getitem)
def crop(g: Graph, node: fx.Node) -> Value:
    """Take some channels; take a crop behind an enlargement for the map's own extent at its stride."""
    if node.args[0] in g.apart:
        whole_map: Any = node.args[0].args[0]  # type: ignore[union-attr]
        part = g.apart[node.args[0]][node.args[1]]  # type: ignore[index]
        return _some_channels(g, node, g.value(whole_map, f"the input of '{node.name}'"), part)
    given, index = g.value(node.args[0], f"the input of '{node.name}'"), node.args[1]
    parts = index if isinstance(index, tuple) else (index,)
    if Ellipsis in [part if part is Ellipsis else None for part in parts]:
        place = next(k for k, part in enumerate(parts) if part is Ellipsis)
        missing = len(given.axes) - len(parts) + 1
        parts = (*parts[:place], *[slice(None)] * missing, *parts[place + 1 :])
    whole = slice(None)
    spatial = all(isinstance(p, slice) and p.start in (None, 0) and p.step is None for p in parts[2:])
    before, after = g.shape(node.args[0]), g.shape(node)
    if parts[0] != whole or not spatial or not (given.cropped or after[2:] == before[2:]):
        raise NotCompiled(f"'{node.name}' indexes a map otherwise than to crop an enlarged one")
    if parts[1:2] in ((), (whole,)):
        return Value(given.map, given.axes)
    return _some_channels(g, node, given, parts[1])


def _some_channels(g: Graph, node: fx.Node, given: Value, part: Any) -> Value:
    """Take a run of channels."""
    ends = (part.start, part.stop) if isinstance(part, slice) else (fx.Node,)
    if any(isinstance(end, fx.Node) for end in ends) or part.step not in (None, 1) or given.axes[1] != "c":
        raise NotCompiled(f"'{node.name}' takes other parts of a map than a run of its channels")
    first, last, _ = part.indices(g.builder.maps[given.map].channels)
    if first >= last:
        raise NotCompiled(f"'{node.name}' takes no channels")
    out = g.like(given.map, channels=last - first)
    g.builder.add_step(node.name, SLICE, given.map, out, at=first)
    return replace(given, map=out)


@step("contiguous", "clone", "detach", "float", torch.clone, F.dropout, F.dropout2d)
def same(g: Graph, node: fx.Node) -> Value:
    """Do nothing."""
    return g.value(node.args[0], f"the input of '{node.name}'")


@step(nn.Dropout, nn.Dropout2d, nn.Identity)
def same_layer(g: Graph, node: fx.Node) -> Value:
    """Do nothing."""
    return g.value(node.args[0], f"the input of '{node.name}'")


@step("permute", torch.permute, "transpose", torch.transpose, "swapaxes")
def reorder(g: Graph, node: fx.Node) -> Value:
    """See the axes in another order."""
    value = g.seen(node.args[0], f"the input of '{node.name}'")
    rank = len(g.shape(node.args[0]))
    if len(value.axes) != rank:
        raise NotCompiled(f"'{node.name}' reorders the axes of what is no map")
    dims = [g.argument(node, k, "dims") for k in range(1, len(node.args))] or [node.kwargs["dims"]]
    flat = list(dims[0]) if len(dims) == 1 and isinstance(dims[0], list | tuple) else dims
    order = [d % rank for d in flat]
    if node.target in ("transpose", torch.transpose, "swapaxes"):
        one, two = order
        order = list(range(rank))
        order[one], order[two] = two, one
    axes, moved = permute(value.axes, order)
    if not value.parts:
        return replace(value, axes=axes)
    numbers = torch.arange(math.prod(value.parts)) if value.order is None else torch.tensor(value.order)
    numbers = numbers.view(value.parts).permute(moved)
    return replace(value, axes=axes, parts=tuple(numbers.shape), order=tuple(numbers.flatten().tolist()))


@step("view", "reshape", torch.reshape, "flatten", torch.flatten, "unflatten", "squeeze", "unsqueeze")
def review(g: Graph, node: fx.Node) -> Value:
    """See the axes joined or taken apart, if every axis still holds whole samples or channels alone."""
    value = g.seen(node.args[0], f"the input of '{node.name}'")
    m = g.builder.maps[value.map]
    before, after = g.shape(node.args[0]), g.shape(node)
    if g.is_vector(value.map):
        return _review_vector(g, node, m.channels)
    if m.kind != TILED:
        raise NotCompiled(f"'{node.name}' reshapes a grid")
    rows, columns = (side // m.stride for side in g.size)
    extent = {"n": before[value.axes.index("n")] if "n" in value.axes else 2, "h": rows, "w": columns}
    try:
        axes, channels = reshape(value.axes, value.parts or [m.channels], extent, after)
    except MixesSamples as error:
        raise NotCompiled(f"'{node.name}' reshapes a map so that {error}") from None
    return replace(value, axes=axes, parts=() if len(channels) == 1 else tuple(channels))


def _review_vector(g: Graph, node: fx.Node, channels: int) -> Value:
    """See the vector of an image with axes of one sample, or without."""
    value, after = g.value(node.args[0], f"the input of '{node.name}'"), g.shape(node)
    for axes in (("n", "c"), NCHW, ("n", "h", "w", "c")):
        if after == tuple({"n": after[0], "c": channels}.get(axis, 1) for axis in axes):
            return replace(value, axes=axes)
    raise NotCompiled(f"'{node.name}' reshapes a vector to {list(after)}")
