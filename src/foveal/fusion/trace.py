"""The graph of a network: traced, and written so that its nodes can be joined."""

from __future__ import annotations

import copy
import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from foveal.fusion.example import Example, Side, leaves, plain, sides_of, with_nodes
from foveal.fusion.layers import Convolve, untouched
from foveal.fusion.nodes import CLAMPS, is_module

IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout2d)
PURE = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}
"""What gives the same value without changing its input."""
VALUES = {"item", "tolist", "equal", "allclose"}
"""What makes numbers of the values of a map."""


class Fused(fx.GraphModule):
    """A graph that keeps what the network says about itself; torch.fx forgets that, in copies too."""

    def take(self, attributes: dict[str, object]) -> None:
        """Take plain attributes."""
        new = {name: value for name, value in attributes.items() if not hasattr(self, name)}
        vars(self).update(new, _taken=new)

    def __deepcopy__(self, memo: dict[int, Any]) -> fx.GraphModule:
        """Copy everything."""
        twin = super().__deepcopy__(memo)
        type(twin).__name__ = type(self).__name__  # the class is the twin's own
        attributes = copy.deepcopy(vars(self).get("_taken", {}), memo)
        vars(twin).update(attributes, _taken=attributes)
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the code, as torch.fx does, and what it would forget."""
        return _restored, (super().__reduce__(), type(self).__name__, vars(self).get("_taken", {}))


def _restored(pickled: tuple[Any, Any], name: str, attributes: dict[str, object]) -> Fused:
    """Make what was pickled again."""
    build, given = pickled
    traced = build(*given)
    made = Fused(traced, traced.graph, name)
    made.take(attributes)
    return made


def attributes_of(network: nn.Module) -> dict[str, object]:
    """Find the plain attributes of a network, and those of its class."""
    names = {*vars(network), *dir(type(network))}.difference(dir(nn.Module()))
    values = {name: getattr(network, name, None) for name in names if not name.startswith("_")}
    return {
        name: value
        for name, value in values.items()
        if value is not None and not callable(value) and not isinstance(value, Tensor)
    }


class Tracer(fx.Tracer):
    """Runs a network on an image while it writes down what the network does.

    Args:
        whole: Names of modules that see the whole map; they become one node.
        image: What the network is given.
        opened: Whether convolutions with a `forward` of their own are looked into.
    """

    def __init__(self, whole: tuple[str, ...], image: Tensor, opened: bool) -> None:
        super().__init__()
        self._whole, self._image, self._opened = whole, image, opened
        self._computing = False

    def trace(self, root: Any, concrete_args: Any = None) -> fx.Graph:
        """Trace a network."""
        with _Making(self):
            traced = super().trace(root, concrete_args)
        graph = fx.Graph()  # without this tracer: its code alone is traced again when it is unpickled
        graph.output(graph.graph_copy(traced, {}))
        for node in graph.nodes:
            node.type = None  # annotations that are strings cannot be pickled
        return graph

    @property
    def computing(self) -> bool:
        """Whether what runs is for the example alone."""
        return self._computing

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module becomes one node."""
        whole = module_qualified_name in self._whole or "forward" in vars(m)  # as by `run_dense`
        own = isinstance(m, nn.Conv2d) and type(m).forward is not nn.Conv2d.forward
        if own and self._opened and not whole and untouched(m):
            return False
        return (
            whole or isinstance(m, nn.Conv2d | Convolve) or super().is_leaf_module(m, module_qualified_name)
        )

    def proxy(self, node: fx.Node) -> Example:
        """Make what stands for a node while the network runs."""
        return Example(node, self)

    def create_arg(self, a: Any) -> Any:
        """Write an argument, sides by the nodes that compute them."""
        return a if isinstance(a, fx.Node) else super().create_arg(with_nodes(a))

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Decide by the example; values of maps decide nothing."""
        value = plain(obj)
        return value if isinstance(value, bool) else super().to_bool(obj)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: Any) -> Any:
        """Take weights as they are, so that what is computed from weights alone is a constant."""
        return attr_val

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Write a module down, or run it for the example; look into what was made of modules in passing."""
        if self._computing or m not in (self.submodule_paths or ()):  # such as a slice of a sequence
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **more: Any) -> Any:
        """Add a node, and compute what it is for the example."""
        found: Any = super().create_proxy(kind, target, args, kwargs, *rest, **more)
        if kind == "placeholder":
            first = sum(node.op == "placeholder" for node in self.graph.nodes) == 1
            found.value = self._image if first else (args or (None,))[0]
            return found
        if str(getattr(target, "__name__", target)) in VALUES:
            raise fx.proxy.TraceError("values of maps are used as numbers")
        value = self._compute(kind, target, plain(args), plain(kwargs))
        if isinstance(value, torch.Size):
            return sides_of(args[0], value)
        if type(value) is int:
            return Side(value, lambda: found.node)
        if value is None or isinstance(value, bool | float | str | torch.dtype | torch.device):
            return value
        found.value = value
        return found

    @torch.no_grad()
    def _compute(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        outer, self._computing = self._computing, True
        try:
            if kind == "get_attr":
                return operator.attrgetter(target)(self.root)
            if kind == "call_method":
                return getattr(args[0], target)(*args[1:], **kwargs)
            if kind == "call_module":
                return self.root.get_submodule(target)(*args, **kwargs)
            return target(*args, **kwargs)
        finally:
            self._computing = outer


class _Making(TorchFunctionMode):
    """Writes down tensors that are made with the sides of maps."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self._tracer = tracer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Add a node for what follows from sides alone."""
        given = leaves([*args, *(kwargs or {}).values()])
        known = self._tracer.computing or not any(isinstance(value, Side) for value in given)
        if known or any(isinstance(value, fx.Proxy) for value in given):
            return func(*args, **(kwargs or {}))
        return self._tracer.create_proxy("call_function", func, args, kwargs or {})


class Shapes(fx.Interpreter):
    """Notes the shape of every tensor in the graph."""

    def run_node(self, n: fx.Node) -> Any:
        """Run a node."""
        value = super().run_node(n)
        n.meta["shape"] = tuple(value.shape) if isinstance(value, Tensor) else None
        n.meta["number"] = value if isinstance(value, int) else None
        return value


def without_overwriting(network: nn.Module) -> nn.Module:
    """Let no activation overwrite its input: what is joined runs at another time."""
    for module in network.modules():
        if getattr(module, "inplace", False) is True:
            vars(module)["inplace"] = False
    return network


def first_difference(one: fx.GraphModule, two: fx.GraphModule) -> fx.Node | None:
    """Return the first node of a graph where another one does something else; None if both do the same.

    Constants that the networks computed are compared too.
    """
    other: dict[fx.Node, fx.Node] = {}
    for a, b in zip(one.graph.nodes, two.graph.nodes, strict=False):
        if (a.op, a.target) != (b.op, b.target):
            return a
        if not _same_values(fx.node.map_arg((a.args, a.kwargs), other.__getitem__), (b.args, b.kwargs)):
            return a
        if a.op == "get_attr" and not _same_values(_attribute(one, a), _attribute(two, b)):
            return a
        other[a] = b
    return None


def place_of(node: fx.Node) -> str:
    """Say which call of which module a node is."""
    call = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    modules = [path for path in node.meta.get("nn_module_stack", ()) if path and path != node.target]
    return f"'{call}'" + (f" in '{modules[-1]}'" if modules else "")


def _attribute(traced: fx.GraphModule, node: fx.Node) -> Any:
    return operator.attrgetter(str(node.target))(traced)


def _same_values(one: Any, two: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        return one.shape == two.shape and bool(torch.equal(one, two))
    return bool(one == two)


def simplify(traced: fx.GraphModule) -> None:
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
        elif any(is_module(traced, node, kind) for kind in IDENTITIES):
            node.replace_all_uses_with(node.args[0])
            traced.graph.erase_node(node)
    traced.graph.eliminate_dead_code()
