"""Layers and activations as steps."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from foveal.fusion.layers import Convolve, norm_of
from foveal.fusion.nodes import CLAMPS, is_module
from foveal.ops import Convolution
from foveal.program.builder import NotCompiled
from foveal.program.graph import Graph, Value, step
from foveal.program.layers import add_convolution, add_transposed, in_order
from foveal.program.spec import (
    AFFINE,
    APPLY,
    FUNCTIONS,
    GROUP_NORM,
    LAYER_NORM,
    TILED,
)

SIMPLE: dict[Any, str] = {
    **dict.fromkeys((nn.Sigmoid, torch.sigmoid, F.sigmoid, "sigmoid", "sigmoid_"), "sigmoid"),
    **dict.fromkeys((nn.SiLU, F.silu), "silu"),
    **dict.fromkeys((nn.Hardsigmoid, F.hardsigmoid), "hardsigmoid"),
    **dict.fromkeys((nn.Hardswish, F.hardswish), "hardswish"),
    **dict.fromkeys((nn.Tanh, torch.tanh, F.tanh, "tanh", "tanh_"), "tanh"),
}
"""Layers, functions and methods that are a function of a number without settings."""


@step(Convolve)
def convolve(g: Graph, node: fx.Node) -> Value:
    """Add a joined convolution."""
    name = str(node.target)
    c, value = g.module(node).convolution, g.seen(node.args[0], f"the input of '{name}'")
    residual = g.map(node.args[1], f"the residual of '{name}'") if len(node.args) > 1 else None
    if value.order is not None and value.whole and (ordered := in_order(c, value.order)) is not None:
        return Value(add_convolution(g.builder, name, ordered, value.map, residual, c.groups))
    given = g.map(node.args[0], f"the input of '{name}'")
    return Value(add_convolution(g.builder, name, c, given, residual))


@step(nn.ConvTranspose2d)
def transpose(g: Graph, node: fx.Node) -> Value:
    """Add a transposed convolution."""
    name = str(node.target)
    return Value(add_transposed(g.builder, name, g.module(node), g.map(node.args[0], f"'{name}'")))


@step(*(kind for kind in SIMPLE if not isinstance(kind, type)))
def function(g: Graph, node: fx.Node) -> Value:
    """Add a function of every number."""
    return apply(g, node, SIMPLE[node.target])


@step(*(kind for kind in SIMPLE if isinstance(kind, type)))
def activation(g: Graph, node: fx.Node) -> Value:
    """Add an activation."""
    return apply(g, node, SIMPLE[type(g.module(node))])


@step(nn.GELU)
def gelu_layer(g: Graph, node: fx.Node) -> Value:
    """Add a GELU, exact or by tanh."""
    return apply(g, node, "gelu" if g.module(node).approximate == "none" else "gelu_tanh")


@step(F.gelu)
def gelu(g: Graph, node: fx.Node) -> Value:
    """Add a GELU, exact or by tanh."""
    return apply(g, node, "gelu" if g.argument(node, 1, "approximate", "none") == "none" else "gelu_tanh")


@step(nn.LeakyReLU)
def leaky_layer(g: Graph, node: fx.Node) -> Value:
    """Add a leaky ReLU."""
    return apply(g, node, "leaky_relu", g.module(node).negative_slope)


@step(F.leaky_relu)
def leaky(g: Graph, node: fx.Node) -> Value:
    """Add a leaky ReLU."""
    return apply(g, node, "leaky_relu", g.argument(node, 1, "negative_slope", 0.01))


@step(nn.PReLU)
def prelu_layer(g: Graph, node: fx.Node) -> Value:
    """Add an activation with a slope per channel."""
    return prelu(g, node, g.module(node).weight)


@step(F.prelu, torch.prelu)
def prelu_call(g: Graph, node: fx.Node) -> Value:
    """Add an activation with a slope per channel."""
    return prelu(g, node, g.constant(g.argument(node, 1, "weight")))


def prelu(g: Graph, node: fx.Node, slopes: Tensor | None) -> Value:
    """Multiply what is below 0 by a slope per channel; a norm that it alone sees is taken in."""
    given = node.args[0]
    source = g.map(given, f"the input of '{node.name}'")
    channels = g.builder.maps[source].channels
    if slopes is None or slopes.numel() not in (1, channels):
        raise NotCompiled(f"'{node.name}' has slopes that are no weights per channel")
    fields = {
        "function": FUNCTIONS.index("prelu"),
        "residual_scale": g.builder.add_numbers(slopes.detach().expand(channels)),
        "before_low": 0.0,
    }
    last = g.builder.steps[-1] if g.builder.steps else None
    norm = isinstance(given, fx.Node) and is_module(g.traced, given, nn.BatchNorm2d) and len(given.users) == 1
    if norm and last is not None and last.out == source:
        last.kind = APPLY
        for name, value in fields.items():
            setattr(last, name, value)
        return Value(source)
    out = g.like(source)
    g.builder.add_step(str(node.target), APPLY, source, out, **fields)
    return Value(out)


def apply(g: Graph, node: fx.Node, name: str, parameter: float = 0.0) -> Value:
    """Add a function of every number, by its name in `FUNCTIONS`."""
    given = g.value(node.args[0], f"the input of '{node.name}'")
    out = g.like(given.map)
    number = FUNCTIONS.index(name)
    g.builder.add_step(str(node.target), APPLY, given.map, out, function=number, before_low=parameter)
    return Value(out, given.axes)


@step(nn.ReLU, nn.ReLU6)
def relu_layer(g: Graph, node: fx.Node) -> Value:
    """Clamp."""
    return clamp(g, node, CLAMPS[type(g.module(node))])


@step(nn.Hardtanh)
def hardtanh(g: Graph, node: fx.Node) -> Value:
    """Clamp."""
    module = g.module(node)
    return clamp(g, node, (module.min_val, module.max_val))


@step(*(kind for kind in CLAMPS if not isinstance(kind, type)))
def relu(g: Graph, node: fx.Node) -> Value:
    """Clamp."""
    return clamp(g, node, CLAMPS[node.target])


@step(torch.clamp, "clamp", "clamp_")
def clamp_call(g: Graph, node: fx.Node) -> Value:
    """Clamp."""
    low, high = g.argument(node, 1, "min"), g.argument(node, 2, "max")
    if not isinstance(low, int | float | None) or not isinstance(high, int | float | None):
        raise NotCompiled(f"'{node.name}' clamps by a map")
    return clamp(g, node, (-math.inf if low is None else low, math.inf if high is None else high))


def clamp(g: Graph, node: fx.Node, limits: tuple[float, float]) -> Value:
    """Add a clamp."""
    given = g.value(node.args[0], f"the input of '{node.name}'")
    out = g.like(given.map)
    g.builder.add_step(str(node.target), AFFINE, given.map, out, low=limits[0], high=limits[1])
    return Value(out, given.axes)


@step(nn.BatchNorm2d)
def batch_norm(g: Graph, node: fx.Node) -> Value:
    """Add a norm that was not joined."""
    name, numbers = str(node.target), norm_of(g.module(node))
    if numbers is None:
        raise NotCompiled(f"'{name}' is a norm without statistics of its own")
    given = g.map(node.args[0], f"the input of '{name}'")
    return Value(affine(g, name, given, *numbers))


def affine(g: Graph, name: str, given: int, scale: Tensor, shift: Tensor) -> int:
    """Scale and shift every channel, and return the map of the result."""
    out = g.like(given)
    numbers = {"before_scale": g.builder.add_numbers(scale), "before_shift": g.builder.add_numbers(shift)}
    g.builder.add_step(name, AFFINE, given, out, **numbers)
    return out


@step(nn.GroupNorm)
def group_norm_layer(g: Graph, node: fx.Node) -> Value:
    """Add a norm of groups of channels over the image."""
    m = g.module(node)
    return group_norm(g, node, m.num_groups, m.weight, m.bias, m.eps)


@step(F.group_norm)
def group_norm_call(g: Graph, node: fx.Node) -> Value:
    """Add a norm of groups of channels over the image."""
    weight, bias = (g.constant(g.argument(node, k, name)) for k, name in ((2, "weight"), (3, "bias")))
    return group_norm(
        g, node, g.argument(node, 1, "num_groups"), weight, bias, g.argument(node, 4, "eps", 1e-5)
    )


def group_norm(
    g: Graph, node: fx.Node, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Value:
    """Normalise groups of channels by their statistics over the image."""
    given = g.map(node.args[0], f"the input of '{node.name}'")
    if g.builder.maps[given].kind != TILED:
        raise NotCompiled(f"'{node.name}' is a norm of something else than a map")
    out = g.like(given)
    fields = {"factor": groups, "before_low": eps, **_numbers(g, given, weight, bias)}
    g.builder.add_step(str(node.target), GROUP_NORM, given, out, **fields)
    return Value(out)


@step(nn.LayerNorm)
def layer_norm_layer(g: Graph, node: fx.Node) -> Value:
    """Add a norm over the channels of every sample."""
    m = g.module(node)
    return layer_norm(g, node, tuple(m.normalized_shape), m.weight, m.bias, m.eps)


@step(F.layer_norm)
def layer_norm_call(g: Graph, node: fx.Node) -> Value:
    """Add a norm over the channels of every sample."""
    shape = tuple(g.argument(node, 1, "normalized_shape"))
    weight, bias = (g.constant(g.argument(node, k, name)) for k, name in ((2, "weight"), (3, "bias")))
    return layer_norm(g, node, shape, weight, bias, g.argument(node, 4, "eps", 1e-5))


def layer_norm(
    g: Graph, node: fx.Node, shape: tuple[int, ...], weight: Tensor | None, bias: Tensor | None, eps: float
) -> Value:
    """Normalise the channels of every sample; they are the last axis."""
    given = g.value(node.args[0], f"the input of '{node.name}'")
    if given.axes[-1] != "c" or shape != (g.builder.maps[given.map].channels,):
        raise NotCompiled(f"'{node.name}' is a norm over samples, not over channels alone")
    out = g.like(given.map)
    fields = {"before_low": eps, **_numbers(g, given.map, weight, bias)}
    g.builder.add_step(str(node.target), LAYER_NORM, given.map, out, **fields)
    return Value(out, given.axes)


def _numbers(g: Graph, given: int, weight: Tensor | None, bias: Tensor | None) -> dict[str, int]:
    """Store the weight and bias of a norm, 1 and 0 where one is missing."""
    channels = g.builder.maps[given].channels
    scale = torch.ones(channels) if weight is None else weight.detach()
    shift = torch.zeros(channels) if bias is None else bias.detach()
    return {"before_scale": g.builder.add_numbers(scale), "before_shift": g.builder.add_numbers(shift)}


@step(nn.Linear)
def linear_layer(g: Graph, node: fx.Node) -> Value:
    """Mix the channels of every sample."""
    return linear(g, node, g.module(node).weight, g.module(node).bias)


@step(F.linear)
def linear_call(g: Graph, node: fx.Node) -> Value:
    """Mix the channels of every sample."""
    weight, bias = (g.constant(g.argument(node, k, name)) for k, name in ((1, "weight"), (2, "bias")))
    return linear(g, node, weight, bias)


def linear(g: Graph, node: fx.Node, weight: Tensor | None, bias: Tensor | None) -> Value:
    """Add a product of the channels, the last axis, as a convolution of single samples."""
    given = g.value(node.args[0], f"the input of '{node.name}'")
    if given.axes[-1] != "c" or weight is None:
        raise NotCompiled(f"'{node.name}' mixes something else than channels by weights")
    number = None if bias is None else bias.detach().float()
    c = Convolution(weight.detach().float()[:, :, None, None], number)
    return Value(add_convolution(g.builder, str(node.target), c, given.map), given.axes)
