"""One node of a traced network, computed: for whoever runs a graph in an order of its own."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

from torch import fx, nn


def compute(node: fx.Node, known: Mapping[str, Any], network: nn.Module, constants: nn.Module) -> Any:
    """Compute a node.

    Args:
        node: A call, or a constant, of a graph.
        known: Values of the nodes before it, by name.
        network: Has the modules that are called, and constants of its own.
        constants: Has those that the network lacks.
    """
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: known[n.name])
    if node.op == "call_module":
        return network.get_submodule(str(node.target))(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    if node.op == "get_attr":
        first = str(node.target).partition(".")[0]
        return operator.attrgetter(str(node.target))(network if hasattr(network, first) else constants)
    return node.target(*args, **kwargs)  # type: ignore[operator]
