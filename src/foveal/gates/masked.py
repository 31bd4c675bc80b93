"""A network whose residual branches are multiplied by masks: how gates are trained, everything computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from foveal.fusion import CannotFuse
from foveal.fusion.graph import trace
from foveal.fusion.interpret import compute
from foveal.fusion.trace import Fused
from foveal.gates.units import Unit, find_units


class MaskedNetwork:
    """Runs a network, the branches of its residual units multiplied by masks.

    The graph calls the network's own modules, so training it trains the network.

    Args:
        network: Module from images [N, C, H, W] to logits, its layers not joined.

    Attributes:
        units: Its residual units, first to last.

    Raises:
        ValueError: It cannot be traced, or its layers are joined.
    """

    def __init__(self, network: nn.Module) -> None:
        try:
            traced: Fused = trace(network)
        except CannotFuse as error:
            raise ValueError(f"gates in {type(network).__name__} cannot be trained: {error}") from None
        self.units: tuple[Unit, ...] = find_units(traced)
        if any(unit.end in unit.steps for unit in self.units):
            raise ValueError("layers of this network are joined, for inference; train it before they are")
        self._network, self._traced = network, traced
        self._masked = {unit.steps[-1]: number for number, unit in enumerate(self.units)}

    def run(self, image: Tensor, mask: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Return the logits of images [N, C, H, W].

        Args:
            image: The images.
            mask: Returns the mask of a unit [N, h, w], from its number and the map that it begins with.
        """
        known: dict[str, Any] = {}
        for node in self._traced.graph.nodes:
            if node.op == "placeholder":
                known[node.name] = image
            elif node.op == "output":
                break
            else:
                known[node.name] = compute(node, known, self._network, self._traced)
            if node.name in self._masked:
                number = self._masked[node.name]
                chosen = mask(number, known[self.units[number].root])
                known[node.name] = known[node.name] * chosen[:, None].to(known[node.name].dtype)
        logits: Tensor = known[node.args[0].name]
        return logits
