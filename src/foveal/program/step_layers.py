"""Layers and activations as steps."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from foveal.fusion.layers import Convolve, norm_of, pair
from foveal.fusion.nodes import CLAMPS
from foveal.ops import Convolution
from foveal.program.builder import NotCompiled
from foveal.program.graph import Graph, Value, step
from foveal.program.layers import add_convolution, add_transposed
from foveal.program.spec import (
    AFFINE,
    APPLY,
    FUNCTIONS,
    GROUP_NORM,
    LAYER_NORM,
    MAX_POOL,
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
    given = g.map(node.args[0], f"the input of '{name}'")
    residual = g.map(node.args[1], f"the residual of '{name}'") if len(node.args) > 1 else None
    return Value(add_convolution(g.builder, name, g.module(node).convolution, given, residual))


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


@step(nn.MaxPool2d)
def max_pool_layer(g: Graph, node: fx.Node) -> Value:
    """Add max pooling."""
    m = g.module(node)
    return max_pool(g, node, (m.kernel_size, m.stride, m.padding, m.dilation), m.ceil_mode, m.return_indices)


@step(F.max_pool2d, torch.max_pool2d)
def max_pool_call(g: Graph, node: fx.Node) -> Value:
    """Add max pooling."""
    kernel = g.argument(node, 1, "kernel_size")
    stride = g.argument(node, 2, "stride") or kernel
    rest = g.argument(node, 3, "padding", 0), g.argument(node, 4, "dilation", 1)
    return max_pool(g, node, (kernel, stride, *rest), bool(g.argument(node, 5, "ceil_mode", False)), False)


def max_pool(g: Graph, node: fx.Node, values: tuple[Any, ...], ceil_mode: bool, indices: bool) -> Value:
    """Take the largest sample of every window."""
    given = g.map(node.args[0], f"the input of '{node.name}'")
    kernel, stride, padding, dilation = map(pair, values)
    plain = stride[0] == stride[1] and dilation[0] == dilation[1] and not indices
    same = all(2 * p == d * (k - 1) for k, p, d in zip(kernel, padding, dilation, strict=True))
    blocks = padding == (0, 0) and kernel == stride and dilation == (1, 1)  # sides are compared later
    if not (plain and (same or blocks)) or (ceil_mode and not blocks):
        raise NotCompiled(
            f"max pooling '{node.target}' has neither an odd window padded to ceil(side / stride) nor "
            "windows side by side"
        )
    out = g.like(given, stride=g.builder.maps[given].stride * stride[0])
    fields = dict(zip(("rows", "columns"), kernel, strict=True))
    fields |= dict(zip(("top", "left"), padding, strict=True))
    g.builder.add_step(
        str(node.target), MAX_POOL, given, out, stride=stride[0], dilation=dilation[0], **fields
    )
    return Value(out)
