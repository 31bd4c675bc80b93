"""What a network does while it is traced: maps carry an example, and sides remember which map they are of.

Whatever a network asks of a map, its rank, its sides, whether they are equal, is answered by the example; so
networks may loop over sizes and decide by them. A side stays the side of its map as long as it is added,
multiplied or divided by whole numbers. Where a decision or any other number follows from sizes, the graph
differs from the one that images of another size give; `foveal.fusion.graph` compares both.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx


class Side(int):
    """A number that follows from the sides of maps, and the node that computes it."""

    _make: Callable[[], fx.Node]
    _node: fx.Node | None

    def __new__(cls, value: int, make: Callable[[], fx.Node]) -> Side:
        """Take the number that it is for the example; `make` adds its node where it is needed."""
        self = super().__new__(cls, value)
        self._make, self._node = make, None
        return self

    @property
    def node(self) -> fx.Node:
        """The node that computes it."""
        if self._node is None:
            self._node = self._make()
        return self._node

    def __neg__(self) -> Any:
        """Return what `-h % 32` needs."""
        return self * -1

    def __truediv__(self, other: Any) -> Any:
        """Divide; what is rounded up or down next is a side again."""
        found = int(self) / other
        return Ratio(found, self, other) if isinstance(other, int) and isinstance(found, float) else found


class Ratio(float):
    """A side over a whole number."""

    _side: Side
    _by: int

    def __new__(cls, value: float, side: Side, by: int) -> Ratio:
        """Note what was divided by what."""
        self = super().__new__(cls, value)
        self._side, self._by = side, by
        return self

    def __ceil__(self) -> int:
        """Round up."""
        return -(-self._side // self._by)

    def __floor__(self) -> int:
        """Round down."""
        return self._side // self._by


def _operator(name: str, swapped: bool) -> Callable[[Side, Any], Any]:
    apply = getattr(operator, name)

    def run(self: Side, other: Any) -> Any:
        if not isinstance(other, int):
            found = getattr(int, f"__{'r' * swapped}{name}__")(self, other)
            return found
        pair = (int(other), int(self)) if swapped else (int(self), int(other))

        def make() -> fx.Node:
            theirs = other.node if isinstance(other, Side) else other
            graph = self.node.graph
            return graph.call_function(apply, (theirs, self.node) if swapped else (self.node, theirs))

        return Side(apply(*pair), make)

    return run


for _name in ("add", "sub", "mul", "floordiv", "mod"):
    setattr(Side, f"__{_name}__", _operator(_name, False))
    setattr(Side, f"__r{_name}__", _operator(_name, True))


class Example(fx.Proxy):
    """A value in a graph, with what it is for the example."""

    value: Any = None

    def __getattr__(self, name: str) -> Any:
        """Give what the example says about itself, and calls of its methods."""
        found = getattr(self.value, name)
        if callable(found):
            return fx.proxy.Attribute(self, name)
        if isinstance(found, torch.Size):
            return sides_of(self, found)
        if any(isinstance(leaf, Tensor) for leaf in leaves([found])):  # a map, or a tuple of them
            return self.tracer.create_proxy("call_function", getattr, (self, name), {})
        return found

    def __len__(self) -> int:
        """Count as the example does."""
        return len(self.value)

    def __iter__(self) -> Iterator[Any]:
        """Take the parts of the example one by one."""
        return (operator.getitem(self, k) for k in range(len(self.value)))


def sides_of(example: fx.Proxy, shape: torch.Size) -> torch.Size:
    """Give the shape of a map as numbers that remember it."""
    graph = example.node.graph

    def side(axis: int) -> Side:
        def make() -> fx.Node:
            whole = graph.call_function(getattr, (example.node, "shape"))
            return graph.call_function(operator.getitem, (whole, axis))

        return Side(shape[axis], make)

    return torch.Size(side(axis) for axis in range(len(shape)))


def plain(value: Any) -> Any:
    """Replace what a graph computes by the examples."""
    if isinstance(value, fx.proxy.Attribute):
        return getattr(plain(value.root), str(value.attr))
    if isinstance(value, Example):
        return value.value
    if isinstance(value, Side):
        return int(value)
    if isinstance(value, slice):
        return slice(plain(value.start), plain(value.stop), plain(value.step))
    if isinstance(value, torch.Size):
        return torch.Size(map(plain, value))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(plain, value))
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value))
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return value


def with_nodes(value: Any) -> Any:
    """Replace sides by the nodes that compute them, and shapes by tuples."""
    if isinstance(value, Side):
        return value.node
    if isinstance(value, slice):
        return slice(with_nodes(value.start), with_nodes(value.stop), with_nodes(value.step))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(with_nodes, value))
    if isinstance(value, tuple):
        return tuple(map(with_nodes, value))
    if isinstance(value, list):
        return [with_nodes(part) for part in value]
    if isinstance(value, dict):
        return {key: with_nodes(part) for key, part in value.items()}
    return value


def leaves(values: Any) -> list[Any]:
    """List what structures hold."""
    if isinstance(values, dict):
        values = list(values.values())
    return (
        [leaf for value in values for leaf in leaves(value)] if isinstance(values, list | tuple) else [values]
    )
