"""Pooling of windows, and channels in another order, as steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from foveal.fusion.layers import pair
from foveal.ops import Convolution
from foveal.program.builder import NotCompiled
from foveal.program.graph import Graph, Value, step
from foveal.program.layers import add_convolution
from foveal.program.spec import MAX_POOL, UNCOUNTED

NO_SHARE = "gives another side than a map's by the stride, or differs by axis or in what it returns"


def _whole_share(kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> bool:
    """Whether windows give side / stride samples of every side that is a multiple of the stride.

    What they give of other sides is compared later, with the network.
    """
    beyond = dilation * (kernel - 1) + 1 - 2 * padding
    return stride <= beyond < 2 * stride if ceil_mode else 0 < beyond <= stride


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
    sides = zip(kernel, stride, padding, dilation, strict=True)
    if not plain or not all(_whole_share(k, s, p, d, ceil_mode) for k, s, p, d in sides):
        raise NotCompiled(f"max pooling '{node.target}' {NO_SHARE}")
    out = g.like(given, stride=stride[0])
    fields = dict(zip(("rows", "columns"), kernel, strict=True))
    fields |= dict(zip(("top", "left"), padding, strict=True))
    g.builder.add_step(
        str(node.target), MAX_POOL, given, out, stride=stride[0], dilation=dilation[0], **fields
    )
    return Value(out)


@step(nn.AvgPool2d)
def average_pool_layer(g: Graph, node: fx.Node) -> Value:
    """Add average pooling."""
    m = g.module(node)
    divides = m.count_include_pad, m.divisor_override
    return average_pool(g, node, (m.kernel_size, m.stride, m.padding), m.ceil_mode, *divides)


@step(F.avg_pool2d)
def average_pool_call(g: Graph, node: fx.Node) -> Value:
    """Add average pooling."""
    kernel = g.argument(node, 1, "kernel_size")
    values = kernel, g.argument(node, 2, "stride") or kernel, g.argument(node, 3, "padding", 0)
    divides = g.argument(node, 5, "count_include_pad", True), g.argument(node, 6, "divisor_override")
    return average_pool(g, node, values, bool(g.argument(node, 4, "ceil_mode", False)), *divides)


def average_pool(
    g: Graph, node: fx.Node, values: tuple[Any, ...], ceil_mode: bool, zeros: bool, divisor: int | None
) -> Value:
    """Average every window, the zeros around the map among its samples, as a filter of equal weights."""
    given = g.map(node.args[0], f"the input of '{node.name}'")
    kernel, stride, padding = map(pair, values)
    sides = zip(kernel, stride, padding, strict=True)
    if stride[0] != stride[1] or not all(_whole_share(k, s, p, 1, ceil_mode=False) for k, s, p in sides):
        raise NotCompiled(f"average pooling '{node.target}' {NO_SHARE}")
    if ceil_mode or not (zeros or divisor or padding == (0, 0)):
        raise NotCompiled(
            f"average pooling '{node.target}' leaves what is outside of the map out of its means"
        )
    return average_blocks(g, node, given, kernel, stride[0], padding, divisor)


def average_blocks(  # noqa: PLR0913
    g: Graph,
    node: fx.Node,
    given: int,
    kernel: tuple[int, int],
    stride: int,
    padding: tuple[int, int],
    divisor: int | None = None,
) -> Value:
    """Add the mean of every window, zeros among them."""
    channels = g.builder.maps[given].channels
    weight = torch.full((channels, 1, *kernel), 1 / (divisor or kernel[0] * kernel[1]))
    c = Convolution(weight, None, stride, padding, groups=channels)
    out = add_convolution(g.builder, g.name(node), c, given)
    g.builder.steps[-1].function = UNCOUNTED
    return Value(out)


@step(nn.ChannelShuffle)
def shuffle_layer(g: Graph, node: fx.Node) -> Value:
    """Take channels of all groups in turn."""
    return shuffle(g, node, g.module(node).groups)


@step(F.channel_shuffle)
def shuffle_call(g: Graph, node: fx.Node) -> Value:
    """Take channels of all groups in turn."""
    return shuffle(g, node, g.argument(node, 1, "groups"))


def shuffle(g: Graph, node: fx.Node, groups: int) -> Value:
    """Note the order of the channels; what reads them takes it in, or it becomes a step."""
    given = g.map(node.args[0], f"the input of '{node.name}'")
    numbers = torch.arange(g.builder.maps[given].channels)
    return Value(given, order=tuple(numbers.view(groups, -1).t().flatten().tolist()))
