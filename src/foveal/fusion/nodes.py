"""What a node of a graph computes: a clamp, a norm, arithmetic with numbers per channel, a sum of maps."""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from foveal.fusion.layers import norm_of, untouched

ADDITIONS = {operator.add, operator.iadd, torch.add, "add", "add_"}
CLAMPS: dict[Any, tuple[float, float]] = {
    nn.ReLU: (0.0, math.inf),
    nn.ReLU6: (0.0, 6.0),
    F.relu: (0.0, math.inf),
    F.relu6: (0.0, 6.0),
    torch.relu: (0.0, math.inf),
    "relu": (0.0, math.inf),
    "relu_": (0.0, math.inf),
}


def summand_of(node: fx.Node, one: fx.Node) -> fx.Node | None:
    """Return what a node adds to `one`, if it is a map of the same shape."""
    if node.op == "call_module" or node.target not in ADDITIONS or len(node.args) != 2 or node.kwargs:
        return None
    other: Any = node.args[1] if node.args[0] is one else node.args[0]
    same = isinstance(other, fx.Node) and other is not one and other.meta.get("shape") == one.meta["shape"]
    return other if same and 1 not in one.meta["shape"][2:] else None  # 1 x 1 may be one number a channel


def clamp_of(traced: fx.GraphModule, node: Any) -> tuple[float, float] | None:
    """Return the limits of a node that clamps."""
    if not isinstance(node, fx.Node):
        return None
    if node.op == "call_module":
        module = module_at(traced, node)
        if not untouched(module):
            return None
        if isinstance(module, nn.Hardtanh):  # ReLU6 is one
            return module.min_val, module.max_val
        return CLAMPS.get(type(module))
    return CLAMPS.get(node.target) if node.op in ("call_function", "call_method") else None


def affine_of(traced: fx.GraphModule, node: fx.Node, one: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return scale and shift [C] of a norm or of arithmetic with numbers per channel, in double precision."""
    if norm := norm_at(traced, node):
        return norm
    if len(node.args) != 2 or node.kwargs:
        return None
    value = _constant(traced, node.args[1], one)
    if value is None or not isinstance(node.args[0], fx.Node) or _shape(node) != _shape(node.args[0]):
        return None
    forms = {
        operator.add: (one, value),
        operator.sub: (one, -value),
        operator.mul: (value, 0 * one),
        operator.truediv: (1 / value, 0 * one),
    }
    return forms.get(node.target)  # type: ignore[arg-type]


def _constant(traced: fx.GraphModule, node: Any, one: Tensor) -> Tensor | None:
    """Return a number, or numbers per channel [1, C, 1, 1], as [C] in the manner of `one`."""
    if isinstance(node, int | float):
        return node * one
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    value = operator.attrgetter(str(node.target))(traced)
    return value.detach().double().flatten() if tuple(value.shape) == (1, len(one), 1, 1) else None


def _shape(node: fx.Node) -> tuple[int, ...] | None:
    return node.meta.get("shape")


def norm_at(traced: fx.GraphModule, node: Any) -> tuple[Tensor, Tensor] | None:
    """Return scale and shift [C] of a node that is a norm with statistics of its own."""
    if is_module(traced, node, nn.BatchNorm2d):
        return norm_of(module_at(traced, node))
    if not isinstance(node, fx.Node) or node.target is not F.batch_norm:
        return None
    names = ("input", "mean", "var", "weight", "bias", "training", "momentum", "eps")
    given = dict(zip(names, node.args, strict=False)) | {
        k.removeprefix("running_"): v for k, v in node.kwargs.items()
    }
    numbers = [_weights(traced, given.get(name)) for name in names[1:5]]
    if given.get("training") or any(n is None for n in numbers[:2]):
        return None
    mean, var, weight, bias = numbers
    scale = (var + given.get("eps", 1e-5)).rsqrt() * (1 if weight is None else weight)
    return scale, (0 if bias is None else bias) - mean * scale


def _weights(traced: fx.GraphModule, node: Any) -> Any:
    """Return weights in double precision; None for what is none."""
    constant = isinstance(node, fx.Node) and node.op == "get_attr"
    return operator.attrgetter(str(node.target))(traced).detach().double() if constant else None


def is_module(traced: fx.GraphModule, node: Any, kind: type[nn.Module]) -> bool:
    """Whether a node is a module of a kind that does what its kind does."""
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return False
    module = module_at(traced, node)
    return isinstance(module, kind) and untouched(module)


def module_at(traced: fx.GraphModule, node: fx.Node) -> Any:
    """Return the module that a node calls."""
    return traced.get_submodule(str(node.target))
