"""Join the layers of a network: norms into convolutions, shortcuts and activations into their ends.

The network is traced into a graph (torch.fx), and every convolution takes in what comes directly before it
(a norm and an activation) and after it (norm, shortcut, norm, activation). What cannot be joined stays as it
is. The result is an ordinary module with the same call, for inference; the given network is not changed.
"""

from __future__ import annotations

import copy
import math
import operator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from foveal.fused.layers import Convolve, as_convolution, norm_of, scaled, with_residual
from foveal.ops import Before, Convolution

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
IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout2d)
SAMPLE = 64
"""Side of the image that shapes are looked at with."""


class CannotFuse(ValueError):
    """A network that cannot be traced."""


def fuse(network: nn.Module, detours: tuple[str, ...] | None = None) -> nn.Module:
    """Return a network with the same answer (up to rounding) and fewer passes over memory.

    Args:
        network: Module from images [N, 3, H, W] to logits; it is taken as in evaluation.
        detours: Submodules that are left as they are, by name; the network's `global_modules` if absent.

    Raises:
        CannotFuse: The network's control flow depends on values, so that it cannot be traced.
    """
    names = tuple(getattr(network, "global_modules", ()) if detours is None else detours)
    root = copy.deepcopy(network).eval()
    try:
        graph = _Tracer(names).trace(root)
    except (fx.proxy.TraceError, TypeError, RuntimeError, ValueError) as error:
        raise CannotFuse(f"{type(network).__name__} cannot be traced: {error}") from error
    traced = fx.GraphModule(root, graph, f"Fused{type(network).__name__}")
    _note_shapes(traced, network)
    _drop_identities(traced)
    for node in list(traced.graph.nodes):
        if _is(traced, node, nn.Conv2d):
            _join(traced, node)
    traced.graph.eliminate_dead_code()
    traced.graph.lint()
    traced.recompile()
    traced.delete_all_unused_submodules()
    for name, value in vars(network).items():
        if not name.startswith("_") and not hasattr(traced, name):
            setattr(traced, name, value)
    return traced.eval().requires_grad_(False)


def faster(network: nn.Module, detours: tuple[str, ...] | None = None) -> nn.Module:
    """Fuse a network if it can be traced; else return it as it is."""
    try:
        return fuse(network, detours)
    except CannotFuse:
        return network


class _Tracer(fx.Tracer):
    """Leaves convolutions of any class, and the modules that see the whole map, as they are."""

    def __init__(self, whole: tuple[str, ...]) -> None:
        super().__init__()
        self._whole = whole

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module becomes one node."""
        whole = module_qualified_name in self._whole or isinstance(m, nn.Conv2d)
        return whole or super().is_leaf_module(m, module_qualified_name)


class _Shapes(fx.Interpreter):
    """Notes the shape of every tensor in the graph."""

    def run_node(self, n: fx.Node) -> Any:
        """Run a node."""
        value = super().run_node(n)
        n.meta["shape"] = tuple(value.shape) if isinstance(value, Tensor) else None
        return value


def _note_shapes(traced: fx.GraphModule, network: nn.Module) -> None:
    like = next(iter(network.parameters()), torch.empty(0))
    with torch.no_grad():
        _Shapes(traced).run(torch.zeros(2, 3, SAMPLE, SAMPLE, dtype=like.dtype, device=like.device))


def _drop_identities(traced: fx.GraphModule) -> None:
    for node in list(traced.graph.nodes):
        if any(_is(traced, node, kind) for kind in IDENTITIES):
            node.replace_all_uses_with(node.args[0])
            traced.graph.erase_node(node)


def _join(traced: fx.GraphModule, node: fx.Node) -> None:
    """Replace a convolution and what surrounds it by one layer."""
    found = as_convolution(_module(traced, node))
    if found is None:
        return
    source, found = _take_before(traced, node, found)
    last, residual, found = _take_after(traced, node, found)
    name = f"{str(node.target).replace('.', '_')}_joined"
    while hasattr(traced, name):
        name += "_"
    traced.add_submodule(name, Convolve(found))
    with traced.graph.inserting_after(last):
        joined = traced.graph.call_module(name, (source,) if residual is None else (source, residual))
    joined.meta["shape"] = last.meta["shape"]
    last.replace_all_uses_with(joined)
    traced.graph.eliminate_dead_code()


def _take_before(traced: fx.GraphModule, node: fx.Node, c: Convolution) -> tuple[fx.Node, Convolution]:
    """Take in an affine change of the input, with a clamp or without, that only this convolution sees."""
    source: Any = node.args[0]  # torch.fx allows anything there; a module's input is a node
    limits = (-math.inf, math.inf)
    if c.groups > 1:
        return source, c
    at: Any = source
    clamp = _clamp(traced, at)
    if clamp and len(at.users) == 1:
        at, limits = at.args[0], clamp
    channels = c.weight.shape[1]
    scale, shift = (torch.full((channels,), value, dtype=torch.float64) for value in (1.0, 0.0))
    taken = False
    while len(at.users) == 1:
        affine = _affine(traced, at, channels)
        if affine is None:
            break
        shift, scale = shift + scale * affine[1], scale * affine[0]
        at, taken = at.args[0], True
    if not taken:
        return source, c
    kind = c.weight.dtype
    return at, replace(c, before=Before(scale.to(kind), shift.to(kind), *limits))


def _take_after(
    traced: fx.GraphModule, node: fx.Node, c: Convolution
) -> tuple[fx.Node, fx.Node | None, Convolution]:
    """Take in norms, one shortcut and a clamp, as long as nothing else sees what lies between."""
    residual: fx.Node | None = None
    while len(node.users) == 1:
        user = next(iter(node.users))
        if _is(traced, user, nn.BatchNorm2d):
            c = scaled(c, *norm_of(_module(traced, user)))
        elif clamp := _clamp(traced, user):
            return user, residual, replace(c, low=clamp[0], high=clamp[1])
        elif residual is None and (other := _summand(user, node)) is not None:
            residual, c = other, with_residual(c)
        else:
            break
        node = user
    return node, residual, c


def _summand(node: fx.Node, one: fx.Node) -> fx.Node | None:
    """Return what a node adds to `one`, if it is a map of the same shape."""
    if node.target not in ADDITIONS or len(node.args) != 2 or node.kwargs:
        return None
    other: Any = node.args[1] if node.args[0] is one else node.args[0]
    same = isinstance(other, fx.Node) and other is not one and other.meta.get("shape") == one.meta["shape"]
    return other if same else None


def _clamp(traced: fx.GraphModule, node: Any) -> tuple[float, float] | None:
    """Return the limits of a node that clamps."""
    if not isinstance(node, fx.Node):
        return None
    if node.op == "call_module":
        module = _module(traced, node)
        if isinstance(module, nn.Hardtanh):  # ReLU6 is one
            return module.min_val, module.max_val
        return CLAMPS.get(type(module))
    return CLAMPS.get(node.target) if node.op in ("call_function", "call_method") else None


def _affine(traced: fx.GraphModule, node: fx.Node, channels: int) -> tuple[Tensor, Tensor] | None:
    """Return scale and shift [C] of a norm or of arithmetic with numbers per channel, in double precision."""
    if _is(traced, node, nn.BatchNorm2d):
        return norm_of(_module(traced, node))
    if len(node.args) != 2 or node.kwargs:
        return None
    value = _constant(traced, node.args[1], channels)
    if value is None or not isinstance(node.args[0], fx.Node):
        return None
    one, zero = torch.ones_like(value), torch.zeros_like(value)
    forms = {
        operator.add: (one, value),
        operator.sub: (one, -value),
        operator.mul: (value, zero),
        operator.truediv: (1 / value, zero),
    }
    return forms.get(node.target)  # type: ignore[arg-type]


def _constant(traced: fx.GraphModule, node: Any, channels: int) -> Tensor | None:
    """Return a number, or numbers per channel [1, C, 1, 1], as [C]."""
    if isinstance(node, int | float):
        return torch.full((channels,), float(node), dtype=torch.float64)
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    value = operator.attrgetter(str(node.target))(traced)
    return value.detach().double().flatten() if tuple(value.shape) == (1, channels, 1, 1) else None


def _is(traced: fx.GraphModule, node: Any, kind: type[nn.Module]) -> bool:
    return isinstance(node, fx.Node) and node.op == "call_module" and isinstance(_module(traced, node), kind)


def _module(traced: fx.GraphModule, node: fx.Node) -> Any:
    return traced.get_submodule(str(node.target))
