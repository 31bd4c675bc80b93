"""The graph of a network: traced, and written so that its nodes can be joined."""

from __future__ import annotations

import copy
import operator
from typing import Any

from torch import Tensor, fx, nn

from foveal.fusion.layers import Convolve
from foveal.fusion.nodes import CLAMPS, is_module

IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout2d)
PURE = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}
"""What gives the same value without changing its input."""


class Fused(fx.GraphModule):
    """A graph that keeps what the network says about itself; torch.fx forgets that, in copies too."""

    def take(self, attributes: dict[str, object]) -> None:
        """Take plain attributes."""
        new = {name: value for name, value in attributes.items() if not hasattr(self, name)}
        vars(self).update(new, _taken=new)

    def __deepcopy__(self, memo: dict[int, Any]) -> fx.GraphModule:
        """Copy everything."""
        twin = super().__deepcopy__(memo)
        attributes = copy.deepcopy(vars(self)["_taken"], memo)
        vars(twin).update(attributes, _taken=attributes)
        return twin


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


class Shapes(fx.Interpreter):
    """Notes the shape of every tensor in the graph."""

    def run_node(self, n: fx.Node) -> Any:
        """Run a node."""
        value = super().run_node(n)
        n.meta["shape"] = tuple(value.shape) if isinstance(value, Tensor) else None
        return value


def without_overwriting(network: nn.Module) -> nn.Module:
    """Let no activation overwrite its input: what is joined runs at another time."""
    for module in network.modules():
        if getattr(module, "inplace", False) is True:
            vars(module)["inplace"] = False
    return network


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
