"""The stages of a network and the heads at their ends as one graph, in the order in which they run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from foveal.exits.places import map_shape
from foveal.exits.stages import Stages

EXIT = "exit"
"""Begins the names of the heads' logits."""


@dataclass(frozen=True)
class StageEnd:
    """Where a stage, or the head behind it, ends in a graph.

    Attributes:
        after: Name of the last node.
        kept: Nodes that later stages or others read, by name, with what those call them.
    """

    after: str
    kept: dict[str, str]


def exit_name(stage: int) -> str:
    """Return what the logits of the head at the end of a stage are called."""
    return f"{EXIT} {stage + 1}"


def join_heads(
    stages: Stages, heads: Sequence[fx.GraphModule | None]
) -> tuple[fx.GraphModule, list[StageEnd]]:
    """Write stages and heads as one graph.

    Args:
        stages: A network with joined layers, in stages.
        heads: What runs at the end of every stage but the last, layers joined; None for nothing.

    Returns:
        The graph, whose output is that of the network; and where every stage ends in it, each followed by
        its head if it has one.
    """
    graph, modules, copied = fx.Graph(), dict[str, Any](), dict[fx.Node, fx.Node]()
    ends: list[StageEnd] = []
    for node in stages.inputs:
        copied[node] = graph.node_copy(node)
    for stage, nodes in enumerate(stages.nodes):
        for node in nodes:
            copied[node] = graph.node_copy(node, copied.__getitem__)
            _take(modules, stages.owner, node, str(node.target))
        kept = {copied[node].name: node.name for node in stages.left_by(stage) if map_shape(node)}
        ends.append(StageEnd(copied[nodes[-1]].name, kept))
        head = heads[stage] if stage < len(heads) else None
        if head is not None:
            given = copied[stages.end_of(stage)]
            found = _add_head(graph, modules, head, given, f"{EXIT}s.{stage}")
            ends.append(StageEnd(found.name, {**kept, found.name: exit_name(stage)}))
    graph.output(copied[stages.end_of(len(stages) - 1)])
    return fx.GraphModule(modules, graph), ends


def _add_head(
    graph: fx.Graph, modules: dict[str, Any], head: fx.GraphModule, given: fx.Node, prefix: str
) -> fx.Node:
    """Add the nodes of a head behind a node; return that of its logits."""
    copied: dict[fx.Node, fx.Node] = {}
    for node in head.graph.nodes:
        if node.op == "placeholder":
            copied[node] = given
        elif node.op == "output":
            return copied[node.args[0]]
        else:
            made = copied[node] = graph.node_copy(node, copied.__getitem__)
            if node.op in ("call_module", "get_attr"):
                made.target = f"{prefix}.{node.target}"
                _take(modules, head, node, str(made.target))
    raise ValueError("a head returns nothing")


def _take(modules: dict[str, Any], owner: nn.Module, node: fx.Node, name: str) -> None:
    """Enter what a node calls or reads."""
    if node.op == "call_module":
        modules[name] = owner.get_submodule(str(node.target))
    elif node.op == "get_attr":
        found: Any = owner
        for part in str(node.target).split("."):
            found = getattr(found, part)
        modules[name] = found
