"""A network whose residual units are computed at listed positions only."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from foveal.cost import count_macs
from foveal.fusion import CannotFuse, fuse
from foveal.fusion.interpret import compute
from foveal.fusion.layers import Convolve
from foveal.gates.positions import Branch, Choice, Mask, Price, Squares, border, cover, numbered
from foveal.gates.units import Layer, Unit, find_units
from foveal.kernels.abi import as_rows, usable
from foveal.ops import Convolution, add_rows, convolve_patches
from foveal.ops.convolve.autotune import BANDWIDTH, SPEED, SQUARES, algorithms

PRICES = {1: 9.0, 2: 19.0, 4: 59.0}
"""Time of a square of 3x3 windows by its side, in products of a channel: Winograd's transforms included."""
WEIGHTS = {1: 9, 2: 16, 4: 36}
"""Numbers that a weight becomes; they are read once for all squares of a side."""
READING = 4 * SPEED / BANDWIDTH
"""Products of a core in the time in which a weight is read from memory."""

Decide = Callable[[int, Tensor, Branch], Choice]
"""Says where a unit is computed, from its number, the map that it begins with, and its branch."""


class GatedNetwork:
    """Runs a network, its residual units where somebody says.

    Args:
        network: Module from images [N, C, H, W] to logits; its layers are joined unless they are.

    Attributes:
        joined: The network with its layers joined.
        units: Its residual units, first to last.
        shares: Work of every layer of every unit, as a share of the whole network's.
        macs_per_image: Multiply-accumulates of the whole network in an image of the traced size [MAC].

    Raises:
        ValueError: It cannot be traced, or has no residual units.
    """

    def __init__(self, network: nn.Module) -> None:
        self.joined = _joined(network)
        self.units = find_units(self.joined)
        if not self.units:
            raise ValueError(
                f"{type(network).__name__} has no residual units (a shortcut beside convolutions in a row), "
                "and gates decide where those are computed; give a network with some, such as a ResNet"
            )
        self.macs_per_image = _dense_macs(self.joined)
        self.shares = tuple(
            tuple(layer.macs * layer.places / self.macs_per_image for layer in unit.layers)
            for unit in self.units
        )
        self._ends = {unit.end: number for number, unit in enumerate(self.units)}
        self._look_up()
        answer: Any = next(n for n in self.joined.graph.nodes if n.op == "output").args[0]
        self._answer: str = answer.name
        self._order, self._done = self._plan()

    def _look_up(self) -> None:
        """Find nodes by their names, and forget what was made of weights."""
        self._nodes: dict[str, fx.Node] = {node.name: node for node in self.joined.graph.nodes}
        self._bare: dict[str, tuple[Convolution, Convolution]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> GatedNetwork:
        """Copy the network; nodes are those of the copy."""
        twin = copy.copy(self)
        memo[id(self)] = twin
        twin.joined = copy.deepcopy(self.joined, memo)
        twin._look_up()
        return twin

    @property
    def outside(self) -> float:
        """Share of the work that is outside of the branches of residual units."""
        return 1.0 - sum(sum(layers) for layers in self.shares)

    def run(self, image: Tensor, decide: Decide) -> Tensor:
        """Return the logits of one image [1, C, H, W].

        Args:
            image: The image.
            decide: Asked for every unit in order, before it is computed.
        """
        known: dict[str, Any] = {n.name: image for n in self.joined.graph.nodes if n.op == "placeholder"}
        for name in self._order:
            number = self._ends.get(name)
            if number is None:
                known[name] = compute(self._nodes[name], known, self.joined, self.joined)
            else:
                known[name] = self._unit(number, known, decide)
            for used in self._done[name]:
                known.pop(used, None)
        logits: Tensor = known[self._answer]
        return logits

    def _unit(self, number: int, known: dict[str, Any], decide: Decide) -> Tensor:
        """Compute a unit where it is decided; elsewhere its shortcut is the answer."""
        unit = self.units[number]
        x, base = known[unit.given], known[unit.shortcut]
        branch = Branch.on((x.shape[2], x.shape[3]), unit.layers, self.shares[number])
        choice = decide(number, known[unit.root], branch)
        if choice.masks[-1].all():
            return self._whole(unit, known)
        rows, where = self._branch(unit, known, choice.masks)
        c = self._convolution(unit.steps[-1]) if unit.end == unit.steps[-1] else None
        finish = () if c is None else (c.residual_scale, c.low, c.high)
        places = torch.from_numpy(where.ravel()).to(base.device)
        out = add_rows(as_rows(base)[0].flatten(0, 1), rows, places, *finish)
        return out.view(1, base.shape[2], base.shape[3], -1).permute(0, 3, 1, 2)

    def _whole(self, unit: Unit, known: dict[str, Any]) -> Tensor:
        """Compute a unit everywhere, as the network does."""
        values = dict(known)
        for step in dict.fromkeys((*unit.steps, unit.end)):
            values[step] = compute(self._nodes[step], values, self.joined, self.joined)
        whole: Tensor = values[unit.end]
        return whole

    def _branch(self, unit: Unit, known: dict[str, Any], masks: Sequence[Mask]) -> tuple[Tensor, Any]:
        """Compute a branch at its positions.

        Returns:
            Rows [B, O], and which of them every position of the result has [p, q]; -1 for none.
        """
        x, layer, before = known[unit.given], 0, unit.given
        rows = as_rows(x)[0].flatten(0, 1)
        where = np.arange(len(rows), dtype=np.int32).reshape(x.shape[2], x.shape[3])
        for step in unit.steps:
            c = self._convolution(step)
            if c is None:
                given = known | {before: rows[:, :, None, None]}
                rows = compute(self._nodes[step], given, self.joined, self.joined)[:, :, 0, 0]
            else:
                c, mask = self._bared(step, c) if step == unit.end else c, masks[layer]
                squares = cover(mask, prices_of(c, usable(rows)))
                rows = _convolved(rows, where, squares, unit.layers[layer], c, int(np.count_nonzero(mask)))
                where = numbered(squares, (mask.shape[0], mask.shape[1]))
                layer += 1
            before = step
        return rows, np.where(masks[-1], where, np.int32(-1))

    def _convolution(self, step: str) -> Convolution | None:
        """Return what a step convolves with; None if it changes every sample by itself."""
        node = self._nodes[step]
        module = self.joined.get_submodule(str(node.target)) if node.op == "call_module" else None
        return module.convolution if isinstance(module, Convolve) else None

    def _bared(self, step: str, c: Convolution) -> Convolution:
        """Return the last convolution of a branch without shortcut and clamp; made once for its weights."""
        known = self._bare.get(step)
        if known is None or known[0] is not c:
            known = c, replace(c, residual_scale=None, low=-math.inf, high=math.inf)
            self._bare[step] = known
        return known[1]

    def _plan(self) -> tuple[list[str], dict[str, list[str]]]:
        """List what runs, in order, units at their ends; and what is not needed any more after each."""
        inner = {step for unit in self.units for step in unit.steps}.difference(self._ends)
        order = [
            node.name
            for node in self.joined.graph.nodes
            if node.op not in ("placeholder", "output") and node.name not in inner
        ]
        last: dict[str, str] = {}
        for name in order:
            used = self._nodes[name].all_input_nodes
            if name in self._ends:
                unit = self.units[self._ends[name]]
                given = [self._nodes[each] for each in (unit.root, unit.given, unit.shortcut)]
                used = [*given, *(n for step in unit.steps for n in self._nodes[step].all_input_nodes)]
            last |= {node.name: name for node in used}
        done: dict[str, list[str]] = {name: [] for name in order}
        for each, name in last.items():
            done[name] += [each] if each != self._answer else []
        return order, done


def _convolved(
    rows: Tensor, where: Any, squares: Sequence[Squares], layer: Layer, c: Convolution, wanted: int
) -> Tensor:
    """Convolve squares of a map, of which row every sample is; return rows [B, O], by-products among them."""
    found, bordered = list[Tensor](), border(where, layer)
    for each in squares:  # what is counted is what is wanted, by the first of them
        index = each.patches(bordered, layer).to(rows.device)
        found.append(convolve_patches(rows, index, c, wanted if not found else 0).flatten(0, 2))
    if not found:
        return rows.new_zeros(0, c.outputs)
    return found[0] if len(found) == 1 else torch.cat(found)


def prices_of(c: Convolution, native: bool) -> dict[int, Price]:
    """Return what squares cost by their side; of side 1 alone where nothing else can be computed faster."""
    fast = native and c.kernel == (3, 3) and set(SQUARES) <= set(algorithms(c))
    reading = READING * torch.get_num_threads()
    return {s: Price(PRICES[s], reading * WEIGHTS[s]) for s in (PRICES if fast else (1,))}


def _joined(network: nn.Module) -> fx.GraphModule:
    """Return a network with its layers joined.

    Raises:
        ValueError: It cannot be traced.
    """
    if isinstance(network, fx.GraphModule) and any(isinstance(m, Convolve) for m in network.modules()):
        return network
    try:
        made: Any = fuse(network)
    except CannotFuse as error:
        raise ValueError(f"{type(network).__name__} cannot have gates: {error}") from None
    joined: fx.GraphModule = made
    return joined


def _dense_macs(joined: fx.GraphModule) -> int:
    """Count the convolutions and products in an image of the traced size."""
    shape = next(node.meta["shape"] for node in joined.graph.nodes if node.op == "placeholder")
    like = next(iter(joined.buffers()), torch.empty(0))
    image = torch.zeros(1, *shape[1:], dtype=like.dtype, device=like.device)
    macs = count_macs(partial(joined, image))
    return macs.convolution + macs.product
