"""Residual units of a network: found in its graph, whatever its modules are called, joined or not.

A unit is a sum of two maps of which one, the branch, comes from convolutions in a row, and the other, the
shortcut, from the same map that the branch began with, as it is or through a convolution. Where the branch is
not computed the unit still has an answer: the shortcut. Basic blocks, bottlenecks and inverted residuals are
such units; a branch that looks at the whole map (squeeze and excitation) is none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from foveal.fusion.convolutions import convolution_at
from foveal.fusion.layers import Convolve
from foveal.fusion.nodes import ADDITIONS, clamp_of, is_module, module_at, norm_at
from foveal.ops import Convolution

POINTWISE = (nn.SiLU, nn.Hardswish, nn.GELU, nn.LeakyReLU, nn.ELU, nn.Mish, nn.Sigmoid, nn.Tanh, nn.Softplus)
POINTWISE_CALLS = {F.silu, F.hardswish, F.gelu, F.leaky_relu, F.elu, F.mish, torch.sigmoid, torch.tanh}
"""What changes every number by itself, besides clamps and norms."""
POOLS = (nn.AvgPool2d, nn.MaxPool2d)
"""What a shortcut may go through besides convolutions."""


@dataclass(frozen=True)
class Layer:
    """A convolution of a branch.

    Attributes:
        kernel: Rows and columns of its window.
        stride: Of the window.
        dilation: Of the window.
        padding: Zeros before the map (top, left).
        macs: Multiply-accumulates per sample of its result [MAC].
        places: Samples of its result in an image of the traced size.
    """

    kernel: tuple[int, int]
    stride: int
    dilation: int
    padding: tuple[int, int]
    macs: int
    places: int


@dataclass(frozen=True)
class Unit:
    """A residual unit, by names of nodes.

    Attributes:
        name: Of its last convolution, the same before and after layers are joined.
        root: The map that branch and shortcut begin with.
        given: What the first convolution of the branch reads.
        steps: The branch from there, in order: convolutions and what changes every sample by itself.
        shortcut: What is added to the branch.
        end: Where it is added: the last convolution itself if layers are joined.
        channels: Channels of the root.
        layers: The convolutions among the steps.
    """

    name: str
    root: str
    given: str
    steps: tuple[str, ...]
    shortcut: str
    end: str
    channels: int
    layers: tuple[Layer, ...]

    @property
    def stride(self) -> int:
        """Samples of the root per sample of the sum, along a side."""
        return math.prod(layer.stride for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the branch in an image of the traced size [MAC]."""
        return sum(layer.macs * layer.places for layer in self.layers)


def find_units(traced: fx.GraphModule) -> tuple[Unit, ...]:
    """Find the residual units of a graph whose nodes know their shapes, first to last."""
    found = []
    for node in traced.graph.nodes:
        unit = next(
            (unit for branch, other in _sums(traced, node) if (unit := _unit(traced, node, branch, other))),
            None,
        )
        if unit is not None:
            found.append(unit)
    return tuple(found)


def convolution_of(traced: fx.GraphModule, node: fx.Node) -> Convolution | None:
    """Return what a node convolves with, joined or not; None if it does something else."""
    if is_module(traced, node, Convolve):
        convolution: Convolution = module_at(traced, node).convolution
        return convolution
    found = convolution_at(traced, node, multiples=True)
    return None if found is None else found[1]


def seen(mask: Tensor, layer: Layer, size: tuple[int, int]) -> Tensor:
    """Return which samples [N, h, w] the windows of some results [N, p, q] see, as 0 and 1."""
    if layer.kernel == (1, 1) and layer.stride == 1:
        return mask
    window = mask.new_ones(1, 1, *layer.kernel)
    wide = F.conv_transpose2d(mask[:, None], window, None, layer.stride, 0, dilation=layer.dilation)
    top, left = layer.padding
    wide = wide[:, 0, top : top + size[0], left : left + size[1]]
    return (F.pad(wide, (0, size[1] - wide.shape[2], 0, size[0] - wide.shape[1])) > 0).to(mask)


def _sums(traced: fx.GraphModule, node: fx.Node) -> Iterator[tuple[fx.Node, fx.Node]]:
    """Give what may be the last step of a branch and its shortcut, where a node adds two maps."""
    args: tuple[Any, ...] = tuple(node.args)
    if len(args) != 2 or not all(isinstance(arg, fx.Node) for arg in args):
        return
    if is_module(traced, node, Convolve):
        yield node, args[1]
    elif node.op != "call_module" and node.target in ADDITIONS and not node.kwargs:
        shapes = [_shape(arg) for arg in args]
        if shapes[0] == shapes[1] and shapes[0]:
            yield args[1], args[0]
            yield args[0], args[1]


def _unit(traced: fx.GraphModule, end: fx.Node, last: fx.Node, shortcut: fx.Node) -> Unit | None:
    if last is not end and len(last.users) != 1:
        return None
    steps, root = _walk(traced, last)
    convolutions = [(node, c) for node in steps if (c := convolution_of(traced, node)) is not None]
    if len(convolutions) < 2 or not _leads(traced, root, shortcut) or not _shape(root):
        return None
    first = steps.index(convolutions[0][0])
    layers = tuple(
        Layer(
            c.kernel,
            c.stride,
            c.dilation,
            c.padding,
            math.prod(c.weight.shape),
            math.prod(_shape(node)[2:]),
        )
        for node, c in convolutions
    )
    names = tuple(node.name for node in steps[first:])
    given, channels = _before(traced, steps[first]), _shape(root)[1]
    return Unit(
        _name(convolutions[-1][0]), root.name, given.name, names, shortcut.name, end.name, channels, layers
    )


def _walk(traced: fx.GraphModule, last: fx.Node) -> tuple[list[fx.Node], fx.Node]:
    """Return the steps in a row that end with a node, in order, and the map that they begin with."""
    steps, node = list[fx.Node](), last
    while _is_step(traced, node):
        steps.insert(0, node)
        node = _before(traced, node)
        if len(node.users) != 1:
            break
    return steps, node


def _is_step(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node is a convolution, or changes every sample by itself."""
    if is_module(traced, node, Convolve):
        return True
    one = len(node.all_input_nodes) == 1 and len(_shape(node)) == 4
    called = node.op == "call_function" and node.target in POINTWISE_CALLS
    return (
        convolution_at(traced, node, multiples=True) is not None
        or norm_at(traced, node) is not None
        or (one and (clamp_of(traced, node) is not None or called))
        or any(is_module(traced, node, kind) for kind in POINTWISE)
    )


def _before(traced: fx.GraphModule, node: fx.Node) -> fx.Node:
    found = None if is_module(traced, node, Convolve) else convolution_at(traced, node, multiples=True)
    before: Any = node.args[0] if found is None else found[0]
    return before


def _leads(traced: fx.GraphModule, root: fx.Node, node: fx.Node) -> bool:
    """Whether a shortcut comes from a map, as it is or through steps and pooling."""
    while node is not root:
        pooled = any(is_module(traced, node, kind) for kind in POOLS)
        if not pooled and not _is_step(traced, node):
            return False
        if is_module(traced, node, Convolve) and len(node.args) > 1:
            return False
        node = _before(traced, node)
    return True


def _shape(node: fx.Node) -> tuple[int, ...]:
    """Return the shape of a map [N, C, H, W]; nothing for what is no map."""
    shape = node.meta.get("shape") or ()
    return tuple(shape) if len(shape) == 4 else ()


def _name(node: fx.Node) -> str:
    """Name a convolution by the module or the weights that it has in the network."""
    stem = str(node.target) if node.op == "call_module" else str(node.args[1]).removesuffix("_weight")
    return stem.rstrip("_").removesuffix("_joined").replace(".", "_")
