"""Places where a network may be left: maps of its graph that everything deeper goes through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx


@dataclass(frozen=True)
class Place:
    """A map of a network that everything deeper goes through.

    Attributes:
        name: Module that it comes out of.
        channels: Channels of the map.
        stride: Pixels of the image per sample.
        node: Name of the node in the graph.
    """

    name: str
    channels: int
    stride: int
    node: str


def map_shape(node: fx.Node) -> tuple[int, ...]:
    """Return the shape of a map [N, C, H, W] in the sample that was traced; nothing for what is no map."""
    shape = node.meta.get("shape") or ()
    return tuple(shape) if len(shape) == 4 else ()


def height_of(traced: fx.GraphModule) -> int:
    """Return the lines of the image that was traced."""
    return next(map_shape(node)[2] for node in traced.graph.nodes if node.op == "placeholder")


def output_of(traced: fx.GraphModule) -> fx.Node:
    """Return the node of the logits.

    Raises:
        ValueError: The network returns something else than one map.
    """
    found = next(node for node in traced.graph.nodes if node.op == "output").args[0]
    if not isinstance(found, fx.Node):
        raise ValueError("the network returns several maps; give one that returns its logits alone")
    return found


def places_through(traced: fx.GraphModule) -> list[Place]:
    """Find the maps that every path from the image to the coarsest map goes through, first to last."""
    maps = _maps_of(traced)
    if not maps:
        return []
    coarsest = min(map_shape(node)[2] for node in maps)
    deepest = next(node for node in reversed(maps) if map_shape(node)[2] == coarsest)
    through = {node.name for node in _dominators(traced, deepest)}
    return [place for place in places_named(traced) if place.node in through]


def places_named(traced: fx.GraphModule) -> list[Place]:
    """Find the maps that are the last of a module, first to last."""
    height, maps = height_of(traced), _maps_of(traced)
    nodes = [node for node in traced.graph.nodes if node.op not in ("placeholder", "output", "get_attr")]
    names = _names(nodes)
    return [
        Place(names[node], map_shape(node)[1], height // map_shape(node)[2], node.name)
        for node in maps
        if node in names and height % map_shape(node)[2] == 0
    ]


def _maps_of(traced: fx.GraphModule) -> list[fx.Node]:
    """Return the nodes that are maps of more than one line and column, but for the logits."""
    end = output_of(traced)
    nodes = [node for node in traced.graph.nodes if node.op not in ("placeholder", "output", "get_attr")]
    return [node for node in nodes if min(map_shape(node)[2:], default=0) > 1 and node is not end]


def _dominators(traced: fx.GraphModule, target: fx.Node) -> set[fx.Node]:
    """Return the nodes that every path from the image to a node goes through, the node among them."""
    found: dict[fx.Node, set[fx.Node] | None] = {}
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            found[node] = {node}
            continue
        before = [found[n] for n in node.all_input_nodes if found.get(n) is not None]
        found[node] = {node}.union(set.intersection(*before)) if before else None  # type: ignore[arg-type]
    return found[target] or set()


def _names(nodes: Sequence[fx.Node]) -> dict[fx.Node, str]:
    """Name nodes by the outermost module that they are the last of; others have no name."""
    last: dict[str, fx.Node] = {}
    for node in nodes:
        for path in node.meta.get("nn_module_stack", ()):
            last[str(path)] = node
    outwards = sorted(last.items(), key=lambda item: -item[0].count("."))
    return {node: path for path, node in outwards if path}


def usual_places(places: Sequence[Place]) -> list[Place]:
    """Choose the last two blocks before a change of stride, all but the last change."""
    found = []
    for stride in sorted({place.stride for place in places})[:-1]:
        there = [place for place in places if place.stride == stride]
        depth = min(place.name.count(".") for place in there)
        found.append([place for place in there if place.name.count(".") == depth][-1])
    return found[-2:]
