"""Which nodes of a graph are convolutions that can be joined: layers, calls, and zeros put around a map."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from foveal.fusion.layers import Window, window_of
from foveal.fusion.nodes import is_module, module_at
from foveal.ops import Convolution

CALLS = {F.conv2d, torch.conv2d}
PADS = {F.pad, torch.constant_pad_nd}
NAMES = ("weight", "bias", "stride", "padding", "dilation", "groups")
DEFAULTS: tuple[Any, ...] = (None, None, 1, 0, 1, 1)


def convolution_at(
    traced: fx.GraphModule, node: fx.Node, multiples: bool
) -> tuple[fx.Node, Convolution] | None:
    """Return what a node convolves, and by what; None if it does something else.

    Args:
        traced: With the shapes of its maps.
        node: Of the graph.
        multiples: Whether it is enough that ceil(side / stride) samples come out for the shapes of the graph.
    """
    read = _read(traced, node)
    if read is None:
        return None
    source, weight, bias, window = read
    padded = _padding_of(traced, source)
    if padded is not None and len(source.users) == 1 and window.before == window.after == (0, 0):
        source, before, after = padded
        window = window._replace(before=before, after=after)
    fits = all(0 <= p <= r for p, r in zip(window.before, window.reach, strict=True))
    if not fits or not (window.keeps_sides or (multiples and _keeps(source, node, window))):
        return None
    return source, window.convolution(weight, bias)


def _read(traced: fx.GraphModule, node: fx.Node) -> tuple[Any, Tensor, Tensor | None, Window] | None:
    """Read a layer or a call: what it is given, weights, bias, window."""
    if is_module(traced, node, nn.Conv2d):
        m = module_at(traced, node)
        if type(m).forward is not nn.Conv2d.forward or m.padding_mode != "zeros":
            return None
        given: list[Any] = [m.weight, m.bias, m.stride, m.padding, m.dilation, m.groups]
    elif node.op == "call_function" and node.target in CALLS and node.args:
        named = dict(zip(NAMES, DEFAULTS, strict=True)) | dict(zip(NAMES, node.args[1:], strict=False))
        given = list((named | node.kwargs).values())[: len(NAMES)]
        given[:2] = (_constant(traced, value) for value in given[:2])
    else:
        return None
    weight, bias, *around = given
    window = None if not isinstance(weight, Tensor) else window_of(weight, *around)
    if window is None or not isinstance(bias, Tensor | None) or not isinstance(node.args[0], fx.Node):
        return None
    return node.args[0], weight.detach(), None if bias is None else bias.detach(), window


def _constant(traced: fx.GraphModule, node: Any) -> Any:
    constant = isinstance(node, fx.Node) and node.op == "get_attr"
    return operator.attrgetter(str(node.target))(traced) if constant else node


def _padding_of(
    traced: fx.GraphModule, node: fx.Node
) -> tuple[fx.Node, tuple[int, int], tuple[int, int] | None] | None:
    """Return what a node puts zeros around, and how many before and behind it; None if it does not."""
    sides: Any = None
    if is_module(traced, node, nn.ConstantPad2d):
        module = module_at(traced, node)
        sides = module.padding if not module.value else None
    elif node.op == "call_function" and node.target in PADS and len(node.args) > 1:
        mode, value = (*node.args[2:], node.kwargs.get("mode"), node.kwargs.get("value"), None)[:2]
        plain = mode in (None, "constant", 0) and not value and not node.kwargs.get("value")
        sides = node.args[1] if plain else None
    if not isinstance(sides, list | tuple) or len(sides) != 4 or not isinstance(node.args[0], fx.Node):
        return None
    left, right, top, bottom = sides
    left, top = (n.meta.get("number") if isinstance(n, fx.Node) else n for n in (left, top))
    if not isinstance(left, int) or not isinstance(top, int):
        return None
    known = isinstance(right, int) and isinstance(bottom, int)
    return node.args[0], (top, left), (bottom, right) if known else None


def _keeps(source: fx.Node, node: fx.Node, window: Window) -> bool:
    """Whether ceil(side / stride) samples come out for the shapes of the graph."""
    before, after = source.meta.get("shape"), node.meta.get("shape")
    if before is None or after is None:
        return False
    return all(b == -(-a // window.stride) for a, b in zip(before[2:], after[2:], strict=True))
