"""A network in stages: its graph, cut where it may be left, so that a stage runs when it is asked for.

The network is traced (torch.fx), not rewritten: the graph calls the network's own modules, so training the
stages trains the network. A place where it may be left is a map that everything deeper goes through: between
two residual blocks, say, but not beside a shortcut. What does not lead to a place runs as late as it can:
the lateral convolutions of a decoder, for instance, in the last stage, for what has got so far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from foveal.cost import count_macs
from foveal.exits.places import (
    Place,
    height_of,
    map_shape,
    output_of,
    places_named,
    places_through,
    usual_places,
)
from foveal.fusion.graph import CannotFuse, trace
from foveal.fusion.interpret import compute
from foveal.fusion.layers import Convolve
from foveal.storage.names import find

PLACE = "place in the network that all of it goes through"
SAMPLE = (128, 192)
"""Sides of the image that shapes and costs are taken from [px]."""


class Stages(nn.Module):
    """A network that runs stage by stage.

    Args:
        network: Module from images [N, C, H, W] to logits [N, K, h, w]; or what `foveal.fuse` made of one.
        names: Modules after which it may be left, first to last; the usual ones if absent.
        anywhere: Whether others may be named too, beside which something deeper goes past.

    Attributes:
        places: Where it may be left.
        stride: Pixels of the image per sample of the network's own logits.
        classes: Logits K.
        is_fused: Whether layers are joined, so that it is for inference alone.

    Raises:
        ValueError: The network cannot be traced, has no such places, or they are in another order.
    """

    def __init__(
        self, network: nn.Module, names: Sequence[str] | None = None, anywhere: bool = False
    ) -> None:
        super().__init__()
        traced = _traced(network)
        found = {place.name: place for place in (places_named if anywhere else places_through)(traced)}
        given = [place.name for place in usual_places(list(found.values()))] if names is None else list(names)
        chosen = [find(name, found, "map in the network" if anywhere else PLACE) for name in given]
        if not given or given != [name for name in found if name in given]:
            raise ValueError(
                f"exits of {type(network).__name__} are after {', '.join(given) or 'nothing'}; give modules "
                f"in the order in which they run, each once: {', '.join(found) or 'there are none'}"
            )
        self.places = tuple(chosen)
        answer = map_shape(output_of(traced))
        self.classes, self.stride = answer[1], height_of(traced) // answer[2]
        self.is_fused = any(isinstance(module, Convolve) for module in network.modules())
        self._network = (network,)  # not a part: its weights are those of whoever has the network
        for name, value in vars(traced)["_buffers"].items():
            if not hasattr(network, name):
                self.register_buffer(name, value, persistent=False)
        self._graph, self._answer = traced.graph, output_of(traced).name
        self._parts, self._last_uses = _cut(traced, [place.node for place in chosen])
        self._reads = [_read_by(nodes) for nodes in self.nodes]
        self._count = _macs(self, _image(network))

    @classmethod
    def places_of(cls, network: nn.Module) -> tuple[Place, ...]:
        """List all places where a network may be left, first to last.

        Raises:
            ValueError: The network cannot be traced.
        """
        return tuple(places_through(_traced(network)))

    def __len__(self) -> int:
        """Count the stages, one more than places."""
        return len(self._parts)

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of the network's convolutions and products that every stage takes, of a whole image."""
        return tuple(count / sum(self._count) for count in self._count)

    @property
    def macs_per_pixel(self) -> float:
        """Multiply-accumulates of the whole network per pixel of an image."""
        return sum(self._count) / (SAMPLE[0] * SAMPLE[1])

    @property
    def like(self) -> Tensor:
        """Some weights of the network, for their precision and device."""
        network = self._network[0]
        return next(network.parameters(), next(network.buffers(), torch.empty(0)))

    def start(self, image: Any) -> dict[str, Any]:
        """Return what the first stage is given: images [N, C, H, W], or their tiles."""
        return {next(node.name for node in self._graph.nodes if node.op == "placeholder"): image}

    def run(self, stage: int, values: dict[str, Any]) -> dict[str, Any]:
        """Run a stage.

        Args:
            stage: Its number, from 0.
            values: What the stage before it has left.

        Returns:
            What later stages need, the map at the stage's end among it.
        """
        known = dict(values)
        nodes = {node.name: node for node in self._graph.nodes}
        for name in self._parts[stage]:
            known[name] = self._compute(nodes[name], known)
            for used in self._last_uses[name]:
                known.pop(used, None)
        return known

    @property
    def owner(self) -> nn.Module:
        """The network whose modules the nodes call."""
        return self._network[0]

    @property
    def inputs(self) -> list[fx.Node]:
        """What the network is given: one node."""
        return [node for node in self._graph.nodes if node.op == "placeholder"]

    @property
    def nodes(self) -> list[list[fx.Node]]:
        """Nodes of every stage, in the order in which they run."""
        known = {node.name: node for node in self._graph.nodes}
        return [[known[name] for name in part] for part in self._parts]

    def left_by(self, stage: int) -> list[fx.Node]:
        """Return the nodes up to a stage that later ones read; after the last stage that of the logits."""
        nodes = self.nodes
        if stage + 1 == len(nodes):
            return [self.end_of(stage)]
        before = [*self.inputs, *(node for part in nodes[: stage + 1] for node in part)]
        later = {node for part in nodes[stage + 1 :] for node in part}
        return [node for node in before if not later.isdisjoint(node.users)]

    def reads(self, stage: int) -> set[str]:
        """Return the names of what a stage reads of what earlier ones, or the image, have left."""
        return self._reads[stage]

    def end_of(self, stage: int) -> fx.Node:
        """Return the node of the map at the end of a stage; that of the logits after the last one."""
        name = self.places[stage].node if stage < len(self.places) else self._answer
        return next(node for node in self._graph.nodes if node.name == name)

    def at(self, stage: int, values: dict[str, Any]) -> Any:
        """Return the map at the end of a stage, from what it left; the logits after the last one."""
        return values[self.places[stage].node if stage < len(self.places) else self._answer]

    def _compute(self, node: fx.Node, known: dict[str, Any]) -> Any:
        return compute(node, known, self._network[0], constants=self)


def _traced(network: nn.Module) -> fx.GraphModule:
    """Return a network as a graph.

    Raises:
        ValueError: It cannot be traced.
    """
    if isinstance(network, fx.GraphModule):
        return network
    try:
        return trace(network)
    except CannotFuse as error:
        raise ValueError(f"{type(network).__name__} cannot be cut into stages: {error}") from None


def _read_by(nodes: Sequence[fx.Node]) -> set[str]:
    """Return the names of what nodes read that is none of them."""
    read = {before for node in nodes for before in node.all_input_nodes}
    return {node.name for node in read.difference(nodes)}


def _image(network: nn.Module) -> Tensor:
    like = next((p for p in network.parameters()), next(iter(network.buffers()), torch.empty(0)))
    stride = max(int(getattr(network, "coarsest_stride", 1)), int(getattr(network, "multiple", 1)))
    sides = [-(-side // stride) * stride for side in SAMPLE]
    return torch.zeros(1, int(getattr(network, "in_channels", 3)), *sides).to(like)


def _cut(
    traced: fx.GraphModule, exits: Sequence[str]
) -> tuple[tuple[tuple[str, ...], ...], dict[str, tuple[str, ...]]]:
    """Give every node to the latest stage that has time for it.

    Returns:
        The nodes of every stage; and what is not needed any more after a node, by its name.
    """
    nodes = [node for node in traced.graph.nodes if node.op != "placeholder"]
    stage: dict[fx.Node, int] = {}
    for node in reversed(nodes):
        users = [stage[user] for user in node.users if user in stage]
        own = exits.index(node.name) if node.name in exits else len(exits)
        stage[node] = min([own, *users])
    parts = tuple(
        tuple(n.name for n in nodes if stage[n] == k and n.op != "output") for k in range(len(exits) + 1)
    )
    order = [name for part in parts for name in part]
    place = {name: k for k, name in enumerate(order)}
    done: dict[str, list[str]] = {name: [] for name in order}
    output = output_of(traced)
    for node in traced.graph.nodes:
        users = [place[user.name] for user in node.users if user.name in place]
        if users and node is not output:
            done[order[max(users)]].append(node.name)
    return parts, {name: tuple(names) for name, names in done.items()}


@torch.no_grad()
def _macs(stages: Stages, image: Tensor) -> list[int]:
    """Count the convolutions and products of every stage, of one image."""
    network = stages._network[0]
    training = [module for module in network.modules() if module.training]
    network.eval()
    values, found = stages.start(image), []
    for stage in range(len(stages)):
        left: list[dict[str, Any]] = []
        macs = count_macs(partial(_append, left, stages.run, stage, values))
        found.append(macs.convolution + macs.product)
        values = left[0]
    for module in training:
        module.training = True
    return found


def _append(found: list[Any], run: Callable[..., Any], *args: Any) -> None:
    found.append(run(*args))
