"""Walks through a fused graph: every node that is a map gets a number, and its steps."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from foveal.program.builder import Builder, NotCompiled
from foveal.program.layers import add_order
from foveal.program.sides import Sides
from foveal.program.spec import BINS, TILED
from foveal.tiles.axes import NCHW, Axes, describe

SAMPLE = (2, 128, 192)
"""Images N, and their sides H and W before they are rounded up, that shapes are looked at with."""


@dataclass(frozen=True)
class Value:
    """What a node of the graph is.

    Attributes:
        map: Number of the map.
        axes: Order in which the network sees its axes.
        cropped: Whether it may be larger than the map of its stride, so that crops do nothing.
        order: Channels of the map in the order in which the network sees them; None if they lie so.
        parts: Sizes of the axes that the network sees the channels on; empty for one axis.
    """

    map: int
    axes: Axes = NCHW
    cropped: bool = False
    order: tuple[int, ...] | None = None
    parts: tuple[int, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether its axes are those of a map [N, C, H, W]."""
        return self.axes == NCHW and not self.parts


Handler = Callable[["Graph", fx.Node], "Value | None"]
MODULES: dict[type[nn.Module], Handler] = {}
FUNCTIONS: dict[Any, Handler] = {}
"""What adds the steps of a layer, and of a function or method."""


DenseHandler = Callable[["Graph", fx.Node, str, nn.Module], "Value | None"]
DENSE: list[DenseHandler] = []
"""What adds the steps of modules that see the whole map, in order; the first that knows one does it."""


def dense_module(handler: DenseHandler) -> DenseHandler:
    """Enter what adds the steps of a module that sees the whole map; it gives None for others."""
    DENSE.append(handler)
    return handler


def step(*kinds: Any) -> Callable[[Handler], Handler]:
    """Enter what adds the steps of classes of layers, functions, or methods by name."""

    def enter(handler: Handler) -> Handler:
        for kind in kinds:
            if isinstance(kind, type):
                MODULES[kind] = handler
            else:
                FUNCTIONS[kind] = handler
        return handler

    return enter


class _Shapes(fx.Interpreter):
    """Notes what every node is for a small image."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}
        self.numbers: dict[fx.Node, Any] = {}

    @torch.no_grad()
    def run_node(self, n: fx.Node) -> Any:
        """Run a node, and note its shape, or the number that it is."""
        found = super().run_node(n)
        if isinstance(found, Tensor):
            self.shapes[n] = tuple(found.shape)
        else:
            self.numbers[n] = found
        return found


class Graph:
    """Adds the steps of a fused graph.

    Args:
        traced: The fused network.
        dense_modules: Submodules that need the whole map, by name.
        multiple: Sides of images must be multiples of it [px].
        channels: Of the images.
        builder: Takes the steps; one of its own if absent.
        sample: Images N, and their sides H and W, that shapes are looked at with.
    """

    inside = False
    """Whether maps are whole maps of a dense module."""

    def __init__(
        self,
        traced: fx.GraphModule,
        dense_modules: tuple[str, ...],
        multiple: int,
        channels: int,
        builder: Builder | None = None,
        sample: tuple[int, int, int] = SAMPLE,
    ) -> None:
        self.traced, self.dense_modules = traced, dense_modules
        self.channels, self.multiple = channels, multiple
        self.builder = builder or Builder()
        self.values: dict[fx.Node, Value] = {}
        self.whole: dict[int, int] = {}
        self.stacked: dict[fx.Node, list[fx.Node]] = {}
        self.apart: dict[fx.Node, list[slice]] = {}  # which channels the parts of a split map have
        images, *sides = sample
        self.size = [side - side % -multiple for side in sides]
        noted = _Shapes(traced)
        noted.run(torch.rand(images, channels, *self.size, generator=torch.Generator().manual_seed(0)))
        self.shapes, self.numbers = noted.shapes, noted.numbers

    def compile(self) -> Any:
        """Return the tables of the program."""
        given = self.builder.add_map(self.channels, 1)
        out = self.walk(given)
        if self.builder.maps[out].kind != TILED:
            raise NotCompiled("the output is no map of the image")
        classes = self.builder.maps[out].channels
        return self.builder.finish(given, out, classes, self.channels, self.multiple)

    def walk(self, given: int) -> int:
        """Add the steps from map `given` on, and return the map of the output."""
        out = -1
        for node in self.traced.graph.nodes:
            if node.op == "placeholder":
                if self.values:
                    raise NotCompiled("the network takes more than one input")
                self.values[node] = Value(given)
            elif node.op == "output":
                out = self.map(node.args[0], "the output")
            elif node.op != "get_attr":
                value = self._steps(node)
                if value is not None:
                    self.values[node] = value
                self.passed(node)
        return out

    def passed(self, node: fx.Node) -> None:
        """Is called when the steps of a node have been added."""

    def _steps(self, node: fx.Node) -> Value | None:
        target: Any = node.target
        if node.op == "call_module":
            module, name = self.module(node), str(target)
            if name in self.dense_modules:
                made = (add(self, node, name, module) for add in DENSE)
                return next(value for value in made if value is not None)
            found = next((MODULES[k] for k in type(module).__mro__ if k in MODULES), None)
            if found is None or type(module).forward not in (k.forward for k in MODULES):
                raise NotCompiled(f"module '{name}' ({type(module).__name__}) has no step")
            return found(self, node)
        known = any(
            a in group for a in node.all_input_nodes for group in (self.values, self.stacked, self.apart)
        )
        if not (known and (node in self.shapes or self.is_split(node))):
            return None  # a size, or what follows from sizes and weights alone
        if target in FUNCTIONS:
            return FUNCTIONS[target](self, node)
        name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
        raise NotCompiled(f"operation '{name}' ({node.name}) has no step")

    def name(self, node: fx.Node) -> str:
        """Return what a user knows a node by: the name of its layer, or of the call."""
        return str(node.target) if node.op == "call_module" else node.name

    def module(self, node: fx.Node) -> Any:
        """Return the layer that a node calls."""
        return self.traced.get_submodule(str(node.target))

    def seen(self, node: Any, what: str) -> Value:
        """Return what a node is; its channels may be split, or seen in another order than they lie.

        Raises:
            NotCompiled: It is no map.
        """
        if not isinstance(node, fx.Node) or node not in self.values:
            raise NotCompiled(f"{what} is no single map [N, C, H, W]")
        return self.values[node]

    def value(self, node: Any, what: str) -> Value:
        """Return what a node is, its channels on one axis as they lie.

        Raises:
            NotCompiled: It is no map, or its channels are split.
        """
        value = self.seen(node, what)
        if value.parts:
            raise NotCompiled(f"{what} is a map whose channels are split")
        if value.order is not None:
            out = add_order(self.builder, f"{node.name}.order", value.map, value.order)
            value = self.values[node] = replace(value, map=out, order=None)
        return value

    def map(self, node: Any, what: str) -> int:
        """Return the number of a map that is seen as [N, C, H, W].

        Raises:
            NotCompiled: It is no map, or seen in another order.
        """
        value = self.value(node, what)
        if value.axes != NCHW:
            raise NotCompiled(f"{what} is a map whose axes are {describe(value.axes)}")
        return value.map

    def shape(self, node: Any) -> tuple[int, ...]:
        """Return the shape of a node for the image of `SAMPLE`."""
        return self.shapes.get(node, ())

    def argument(self, node: fx.Node, place: int, name: str, default: Any = None) -> Any:
        """Return an argument of a call; numbers that follow from sizes are as for `SAMPLE`."""
        given = node.args[place] if len(node.args) > place else node.kwargs.get(name, default)
        return fx.node.map_arg(given, lambda n: self.numbers.get(n, n))

    def constant(self, node: Any) -> Any:
        """Return a number or the weights that a node gives; None if it is neither."""
        if isinstance(node, int | float):
            return torch.tensor(float(node), dtype=torch.float64)
        if not isinstance(node, fx.Node) or node.op != "get_attr":
            return None
        found = operator.attrgetter(str(node.target))(self.traced)
        return found.detach().double() if isinstance(found, Tensor) else None

    def is_split(self, node: fx.Node) -> bool:
        """Whether a node gives several maps."""
        found = self.numbers.get(node)
        return isinstance(found, list | tuple) and bool(found) and all(isinstance(m, Tensor) for m in found)

    def sides(self, node: fx.Node) -> Sides:
        """Return the sides of a whole map in a dense module, as shares of those of the map it is given.

        Raises:
            NotCompiled: It is no map in a dense module, or its sides are no such share.
        """
        raise NotCompiled(f"'{self.name(node)}' is in no dense module")

    def like(self, given: int, channels: int | None = None, stride: int = 1) -> int:
        """Add a map as a given one, with other channels or behind windows `stride` samples apart."""
        return self.builder.add_like(given, channels, stride)

    def is_vector(self, given: int) -> bool:
        """Whether a map has one row for every image."""
        m = self.builder.maps[given]
        return bool(m.kind == BINS and m.grid == 1 == m.columns)
