"""Who chooses the paths of an image, layer by layer: a fixed route, or weights within a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from foveal.models.lattice import WAYS, Weights
from foveal.routes.costs import LatticeCosts
from foveal.routes.route import CLOSED, Route

CellWeights = tuple[float, ...]
Ask = Callable[[int], CellWeights]
"""Returns the weights of all three ways out of the cell of a scale, 0 where there is none."""


class Choice(Protocol):
    """Chooses for one image.

    Attributes:
        asked: Layer and scale of the cells whose gates were asked.
    """

    asked: list[tuple[int, int]]

    def layer(self, layer: int, present: Sequence[int], ask: Ask) -> dict[int, CellWeights]:
        """Return the weights of the ways out of every cell of a layer that something has arrived at.

        Args:
            layer: Its number; layers come in order.
            present: Scales of these cells.
            ask: Asks the gate of a scale.
        """
        ...


class FixedChoice:
    """Takes a route, whatever the image.

    Args:
        route: The route.
    """

    def __init__(self, route: Route) -> None:
        self.route = route
        self.asked: list[tuple[int, int]] = []

    def layer(self, layer: int, present: Sequence[int], ask: Ask) -> dict[int, CellWeights]:
        """Return the weights of the route; nothing is asked."""
        return {scale: self.route.weights[layer][scale] for scale in present}


class BudgetChoice:
    """Opens paths in the order of their weights, as many as the image may still pay for.

    Up to a layer, cells may cost the share of all cells up to it that the budget pays for. What a layer
    leaves, later ones have; what it opens last may cost more, and later ones save that. Beyond the whole
    budget nothing is spent: stem, decoder and gates are paid from it too.

    Args:
        costs: Of the lattice on the image.
        most: MACs that may be spent [MAC].
        usual: Usual weights of the network; cells whose paths are widest are asked first.
        priced: Whether asking costs what a gate does. If not, what is answered is an order alone, and open
            paths have their usual weights.
        threshold: Paths of less weight are closed.
    """

    def __init__(
        self, costs: LatticeCosts, most: float, usual: Weights, priced: bool, threshold: float = 0.0
    ) -> None:
        self.costs, self.usual, self.priced = costs, usual, priced
        self.threshold = max(threshold, CLOSED)
        self.asked: list[tuple[int, int]] = []
        self._left = most - costs.least
        self._share = max(0.0, self._left) / costs.routed
        self._due, self._paid, self._coarsest = 0.0, 0, 0

    def layer(self, layer: int, present: Sequence[int], ask: Ask) -> dict[int, CellWeights]:
        """Choose for a layer."""
        scales = range(self.costs.shape.scales(layer))
        self._due += self._share * sum(self.costs.cell(layer, scale) for scale in scales)
        credit = self._due - self._paid
        weights = self._ask(layer, present, ask, credit)
        found = {scale: (0.0,) * len(WAYS) for scale in present}
        for minus, scale, k in sorted(
            (-weight, scale, k)
            for scale, cell in weights.items()
            for k, weight in enumerate(cell)
            if weight >= self.threshold
        ):
            cost = self._cost(scale, WAYS[k], any(found[scale]))
            if credit > 0 and cost <= self._left:
                self._pay(cost)
                credit -= cost
                weight = -minus if self.priced else self.usual[layer][scale][k]
                found[scale] = (*found[scale][:k], weight, *found[scale][k + 1 :])
                self._coarsest = max(self._coarsest, scale + (WAYS[k] == "down"))
        return found

    def _ask(self, layer: int, present: Sequence[int], ask: Ask, credit: float) -> dict[int, CellWeights]:
        """Ask as many cells as the credit could open a path of."""
        found: dict[int, CellWeights] = {}
        order = sorted(present, key=lambda scale: (-max(self.usual[layer][scale][: len(WAYS)]), scale))
        for scale in order:
            gate = self.costs.gate(layer, scale) if self.priced else 0
            cheapest = min(self._cost(scale, way, False) for way in self.costs.shape.ways(layer, scale))
            if credit > 0 and gate + cheapest <= self._left:
                self._pay(gate)
                credit -= gate + cheapest
                found[scale] = ask(scale)
                self.asked += [(layer, scale)] * self.priced
        return found

    def _cost(self, scale: int, way: str, computed: bool) -> int:
        """Return what a path costs: its transform, the cell if it is the first, and a decoder unit."""
        first = way == "down" and scale + 1 > self._coarsest
        unit = self.costs.unit(scale + 1) if first else 0
        return self.costs.way(way, scale) + unit + (0 if computed else self.costs.body(scale))

    def _pay(self, cost: int) -> None:
        self._left -= cost
        self._paid += cost
