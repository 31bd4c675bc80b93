"""Dense modules in general: their ordinary layers as steps on the whole map of every image.

The map that a module is given is composed at the finest level that occurs in an image, its layers run on
it as on one large tile, and what they return is cut into tiles again. Maps within have sides that follow
from those of the given map by one rule, which is read off from several sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from foveal.fusion.graph import CannotFuse, fuse_part
from foveal.program.builder import NotCompiled
from foveal.program.graph import Graph, Value, dense_module
from foveal.program.sides import Sides, fitted
from foveal.program.spec import CUT, WHOLE
from foveal.program.step_arithmetic import composed

SIZES = (23, 37), (5, 201), (157, 4), (97, 11), (2, 131), (64, 6)
"""Sides H and W of the maps that a module is traced with: small and large ones, and of all remainders."""
RESIZED = (F.interpolate, F.adaptive_avg_pool2d)
"""Calls whose sizes the rules of the maps say."""


class Part(Graph):
    """Adds the steps of a module that sees the whole map.

    Args:
        outer: The graph that it is a part of.
        name: Of the module.
        module: It is traced alone.
        given: Number of the composed map.

    Raises:
        NotCompiled: It cannot be traced, or what it does depends on the size in a way that no step can say.
    """

    inside = True

    def __init__(self, outer: Graph, name: str, module: nn.Module, given: int) -> None:
        channels = outer.builder.maps[given].channels
        draw = torch.Generator().manual_seed(0)
        try:
            traced = [fuse_part(module, torch.rand(1, channels, *size, generator=draw)) for size in SIZES]
        except CannotFuse as error:
            raise NotCompiled(f"dense module '{name}': {error}") from None
        self._alike(name, traced)
        super().__init__(traced[0], (), 1, channels, outer.builder, (1, *SIZES[0]))
        self.name_of_part, self.given = name, given
        self.maps_of = [[node.meta["shape"] for node in t.graph.nodes if _is_map(node)] for t in traced]
        self.place = {node: k for k, node in enumerate(filter(_is_map, traced[0].graph.nodes))}

    def add(self) -> int:
        """Add the steps and return the number of the map that the module returns."""
        return self.walk(self.given)

    def sides(self, node: fx.Node) -> Sides:
        """Return the rule that the sides of a map follow.

        Raises:
            NotCompiled: They follow none.
        """
        at = self.place[node]
        shapes = [shapes[at] for shapes in self.maps_of]
        rule = None
        if all(shape is not None and len(shape) == 4 for shape in shapes):
            rule = fitted(
                (given, side)
                for size, shape in zip(SIZES, shapes, strict=True)
                for given, side in zip(size, shape[2:], strict=True)
            )
        if rule is None:
            raise NotCompiled(
                f"'{self.name(node)}' makes a map whose sides are no share of those that it is given"
            )
        return rule

    def name(self, node: fx.Node) -> str:
        """Return what a user knows a node by."""
        return f"{self.name_of_part}.{super().name(node)}"

    @staticmethod
    def _alike(name: str, traced: Sequence[fx.GraphModule]) -> None:
        """Refuse graphs that differ in more than sizes.

        Raises:
            NotCompiled: They do.
        """
        first, *others = [[_said(node) for node in t.graph.nodes if _is_map(node)] for t in traced]
        if any(other != first for other in others):
            raise NotCompiled(f"dense module '{name}' does something that depends on the size of its map")


def _is_map(node: fx.Node) -> bool:
    return node.meta.get("shape") is not None


def _said(node: fx.Node) -> Any:
    """Say what a node computes, but for the sizes that it is given."""
    if node.target in RESIZED:
        named = {key: value for key, value in node.kwargs.items() if key not in ("size", "output_size")}
        return node.op, node.target, _plain((node.args[2:], named))
    return node.op, node.target, _plain((node.args, node.kwargs))


def _plain(value: Any) -> Any:
    """Write arguments so that those of two graphs can be compared: maps are maps, and numbers are numbers."""
    return fx.node.map_arg(value, lambda n: "map" if _is_map(n) else n.meta.get("number"))


@dense_module
def whole_part(g: Graph, node: fx.Node, name: str, module: nn.Module) -> Value:
    """Compose the map, add the module's steps, and cut what it returns.

    Raises:
        NotCompiled: It is given more than a map, or returns a map of other sides.
    """
    if len(node.args) != 1 or node.kwargs:
        raise NotCompiled(f"dense module '{name}' is given something else than one map")
    given = composed(g, g.map(node.args[0], f"the input of '{name}'"))
    found = Part(g, name, module, given).add()
    m = g.builder.maps[found]
    if m.kind != WHOLE or m.down or found == given:
        raise NotCompiled(
            f"dense module '{name}' returns something else than a new map of the sides that it was given"
        )
    out = g.builder.add_map(m.channels, m.stride)
    g.builder.add_step(f"{name}.cut", CUT, found, out)
    return Value(out)
