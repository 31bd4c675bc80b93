"""Joining the nodes of a graph: every convolution takes in what surrounds it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from foveal.fusion.convolutions import convolution_at
from foveal.fusion.layers import Convolve, scaled, with_residual
from foveal.fusion.nodes import affine_of, clamp_of, norm_at, summand_of
from foveal.ops import Convolution, Prologue


def join_all(traced: fx.GraphModule, multiples: bool) -> None:
    """Join whatever can be joined, and drop what is not needed any more.

    Args:
        traced: With the shapes of its maps.
        multiples: Whether convolutions count that keep ceil(side / stride) samples of these maps only.
    """
    for node in list(traced.graph.nodes):
        found = convolution_at(traced, node, multiples)
        if found is not None:
            _join(traced, node, *found)
    traced.graph.eliminate_dead_code()
    traced.graph.lint()
    traced.recompile()
    traced.delete_all_unused_submodules()


def _join(traced: fx.GraphModule, node: fx.Node, given: fx.Node, found: Convolution) -> None:
    """Replace a convolution and what surrounds it by one layer."""
    if node.args[0] is not given:  # what computed the zeros around the map is not needed any more
        node.replace_input_with(node.args[0], given)  # type: ignore[arg-type]
        traced.graph.eliminate_dead_code()
    source, found = _take_prologue(traced, given, found)
    last, residual, found = _take_epilogue(traced, node, found)
    stem = str(node.target) if node.op == "call_module" else str(node.args[1]).removesuffix("_weight")
    name = f"{stem.replace('.', '_')}_joined"
    while hasattr(traced, name):
        name += "_"
    traced.add_submodule(name, Convolve(found))
    with traced.graph.inserting_after(last):
        joined = traced.graph.call_module(name, (source,) if residual is None else (source, residual))
    joined.meta = {**node.meta, "shape": last.meta["shape"]}  # the place in the network is the convolution's
    last.replace_all_uses_with(joined)
    traced.graph.eliminate_dead_code()


def _take_prologue(traced: fx.GraphModule, source: Any, c: Convolution) -> tuple[fx.Node, Convolution]:
    """Take in an affine change of the input, with a clamp or without, that only this convolution sees."""
    limits = (-math.inf, math.inf)
    if c.groups > 1:
        return source, c
    at: Any = source
    clamp = clamp_of(traced, at)
    if clamp and len(at.users) == 1:
        at, limits = at.args[0], clamp
    one = torch.ones(c.weight.shape[1], dtype=torch.float64, device=c.weight.device)
    scale, shift = one, 0 * one
    taken = False
    while len(at.users) == 1:
        affine = affine_of(traced, at, one)
        if affine is None:
            break
        shift, scale = shift + scale * affine[1], scale * affine[0]
        at, taken = at.args[0], True
    if not taken:
        return source, c
    kind = c.weight.dtype
    return at, replace(c, prologue=Prologue(scale.to(kind), shift.to(kind), *limits))


def _take_epilogue(
    traced: fx.GraphModule, node: fx.Node, c: Convolution
) -> tuple[fx.Node, fx.Node | None, Convolution]:
    """Take in norms, one shortcut and a clamp, as long as nothing else sees what lies between."""
    residual: fx.Node | None = None
    while len(node.users) == 1:
        user = next(iter(node.users))
        if norm := norm_at(traced, user):
            c = scaled(c, *norm)
        elif clamp := clamp_of(traced, user):
            return user, residual, replace(c, low=clamp[0], high=clamp[1])
        elif residual is None and (other := summand_of(user, node)) is not None:
            residual, c = other, with_residual(c)
        else:
            break
        node = user
    return node, residual, c
