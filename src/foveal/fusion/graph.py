"""Join the layers of a network: norms into convolutions, shortcuts and activations into their ends.

The network is traced into a graph (torch.fx), and every convolution takes in what comes directly before it
(a norm and an activation) and after it (norm, shortcut, norm, activation). What cannot be joined stays as it
is. The result is an ordinary module with the same call, for inference; the given network is not changed.
"""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from foveal.fusion.layers import Convolve, as_convolution, norm_of, scaled, untouched, with_residual
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
PURE = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}
"""What gives the same value without changing its input."""
SAMPLE = 64
"""Side of the images that shapes and the answer are looked at with."""
ROUNDINGS, MOST = 1e4, 0.1
"""Roundings of the largest number that joined layers may be off, and the largest share of it."""


class CannotFuse(ValueError):
    """A network that cannot be traced, or that is another one once it is."""


def fuse(network: nn.Module, dense_modules: tuple[str, ...] | None = None) -> nn.Module:
    """Return a network with the same answer (up to rounding) and fewer passes over memory.

    Args:
        network: Module from images [N, 3, H, W] to logits; it is taken as in evaluation.
        dense_modules: Submodules that are left as they are, by name; the network's `dense_modules` if absent.

    Raises:
        CannotFuse: The network's control flow depends on values, or it relies on something else that is lost
            in a graph, or rounding errors grow in it: its answer for an image of 64 x 64 px is another one.
    """
    names = tuple(getattr(network, "dense_modules", ()) if dense_modules is None else dense_modules)
    kind = type(network).__name__
    try:
        root = copy.deepcopy(network).eval()
        image = _image(root)
        expected = _answer(root, image)
        graph = _Tracer(names).trace(_pure(root))
    except Exception as error:  # whatever a network does when it is given something else than an image
        raise CannotFuse(f"{kind} cannot be traced: {' '.join(str(error).split())[:200]}") from error
    traced = _Fused(root, graph, f"Fused{kind}")
    _simplify(traced)
    if not _same(_answer(_Shapes(traced).run, image), expected):  # it does the same, so not a bit differs
        raise CannotFuse(f"{kind} gives another answer once it is traced")
    _join_all(traced)
    traced.eval().requires_grad_(False)
    traced.take(_attributes(network))
    if not _same(_answer(traced, image), expected, ROUNDINGS):
        raise CannotFuse(f"{kind} gives another answer once its layers are joined")
    return traced


def faster(network: nn.Module, dense_modules: tuple[str, ...] | None = None) -> nn.Module:
    """Fuse a network if it can be traced; else return it as it is."""
    try:
        return fuse(network, dense_modules)
    except CannotFuse:
        return network


class _Fused(fx.GraphModule):
    """A graph that keeps what the network says about itself; torch.fx forgets that, in copies too."""

    def take(self, attributes: dict[str, Any]) -> None:
        """Take plain attributes."""
        new = {name: value for name, value in attributes.items() if not hasattr(self, name)}
        vars(self).update(new, _taken=new)

    def __deepcopy__(self, memo: dict[int, Any]) -> fx.GraphModule:
        """Copy everything."""
        twin = super().__deepcopy__(memo)
        attributes = copy.deepcopy(vars(self)["_taken"], memo)
        vars(twin).update(attributes, _taken=attributes)
        return twin


def _attributes(network: nn.Module) -> dict[str, Any]:
    """Find the plain attributes of a network, and those of its class."""
    names = {*vars(network), *dir(type(network))}.difference(dir(nn.Module()))
    values = {name: getattr(network, name, None) for name in names if not name.startswith("_")}
    return {
        name: value
        for name, value in values.items()
        if value is not None and not callable(value) and not isinstance(value, Tensor)
    }


class _Tracer(fx.Tracer):
    """Leaves convolutions of any class, and the modules that see the whole map, as they are."""

    def __init__(self, whole: tuple[str, ...]) -> None:
        super().__init__()
        self._whole = whole

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module becomes one node."""
        whole = module_qualified_name in self._whole or "forward" in vars(m)  # as by `run_dense`
        return (
            whole or isinstance(m, nn.Conv2d | Convolve) or super().is_leaf_module(m, module_qualified_name)
        )


class _Shapes(fx.Interpreter):
    """Notes the shape of every tensor in the graph."""

    def run_node(self, n: fx.Node) -> Any:
        """Run a node."""
        value = super().run_node(n)
        n.meta["shape"] = tuple(value.shape) if isinstance(value, Tensor) else None
        return value


def _image(network: nn.Module) -> Tensor:
    """Draw two small images in the network's precision."""
    like = next(iter(network.parameters()), torch.empty(0))
    noise = torch.rand(2, 3, SAMPLE, SAMPLE, generator=torch.Generator().manual_seed(0))
    return noise.to(like)


@torch.no_grad()
def _answer(network: Callable[[Tensor], Any], image: Tensor) -> Any:
    return network(image.clone())


def _pure(network: nn.Module) -> nn.Module:
    """Let no activation overwrite its input: what is joined runs at another time."""
    for module in network.modules():
        if getattr(module, "inplace", False) is True:
            vars(module)["inplace"] = False
    return network


def _simplify(traced: fx.GraphModule) -> None:
    """Write calls by position and without changing their input, and drop what does nothing."""
    for node in list(traced.graph.nodes):
        if not node.args and "input" in node.kwargs and (node.op == "call_module" or node.target in CLAMPS):
            rest = {name: value for name, value in node.kwargs.items() if name != "input"}
            node.args, node.kwargs = (node.kwargs["input"],), rest
        if node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}
        if node.op == "call_function":
            node.target = PURE.get(node.target, node.target)
        elif node.op == "call_method" and callable(getattr(Tensor, node.target.removesuffix("_"), None)):
            node.target = node.target.removesuffix("_")
        elif any(_is(traced, node, kind) for kind in IDENTITIES):
            node.replace_all_uses_with(node.args[0])
            traced.graph.erase_node(node)
    traced.graph.eliminate_dead_code()


def _same(found: Any, expected: Any, roundings: float = 0) -> bool:
    """Whether two answers, tensors or structures of them, agree up to roundings of the largest number."""
    if isinstance(expected, dict):
        return all(_same(found[key], value, roundings) for key, value in expected.items())
    if isinstance(expected, list | tuple):
        return all(_same(x, y, roundings) for x, y in zip(found, expected, strict=True))
    if not isinstance(expected, Tensor):
        return bool(found == expected)
    if found.shape != expected.shape or not expected.is_floating_point():
        return torch.equal(found, expected)
    share = min(MOST, roundings * torch.finfo(expected.dtype).eps)
    return bool(((found - expected).abs() <= share * expected.abs().max()).all())


def _join_all(traced: fx.GraphModule) -> None:
    """Join whatever can be joined, and drop what is not needed any more."""
    for node in list(traced.graph.nodes):
        if _is(traced, node, nn.Conv2d):
            _join(traced, node)
    traced.graph.eliminate_dead_code()
    traced.graph.lint()
    traced.recompile()
    traced.delete_all_unused_submodules()


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
    joined.meta = {**node.meta, "shape": last.meta["shape"]}  # the place in the network is the convolution's
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
    one = torch.ones(c.weight.shape[1], dtype=torch.float64, device=c.weight.device)
    scale, shift = one, 0 * one
    taken = False
    while len(at.users) == 1:
        affine = _affine(traced, at, one)
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
        if norm := _norm(traced, user):
            c = scaled(c, *norm)
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
    if node.op == "call_module" or node.target not in ADDITIONS or len(node.args) != 2 or node.kwargs:
        return None
    other: Any = node.args[1] if node.args[0] is one else node.args[0]
    same = isinstance(other, fx.Node) and other is not one and other.meta.get("shape") == one.meta["shape"]
    return other if same and 1 not in one.meta["shape"][2:] else None  # 1 x 1 may be one number a channel


def _clamp(traced: fx.GraphModule, node: Any) -> tuple[float, float] | None:
    """Return the limits of a node that clamps."""
    if not isinstance(node, fx.Node):
        return None
    if node.op == "call_module":
        module = _module(traced, node)
        if not untouched(module):
            return None
        if isinstance(module, nn.Hardtanh):  # ReLU6 is one
            return module.min_val, module.max_val
        return CLAMPS.get(type(module))
    return CLAMPS.get(node.target) if node.op in ("call_function", "call_method") else None


def _affine(traced: fx.GraphModule, node: fx.Node, one: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return scale and shift [C] of a norm or of arithmetic with numbers per channel, in double precision."""
    if norm := _norm(traced, node):
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


def _norm(traced: fx.GraphModule, node: Any) -> tuple[Tensor, Tensor] | None:
    """Return scale and shift [C] of a node that is a norm with statistics of its own."""
    return norm_of(_module(traced, node)) if _is(traced, node, nn.BatchNorm2d) else None


def _is(traced: fx.GraphModule, node: Any, kind: type[nn.Module]) -> bool:
    """Whether a node is a module of a kind that does what its kind does."""
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return False
    module = _module(traced, node)
    return isinstance(module, kind) and untouched(module)


def _module(traced: fx.GraphModule, node: fx.Node) -> Any:
    return traced.get_submodule(str(node.target))
