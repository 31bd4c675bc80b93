"""Survey of a network: which of its operations have no meaning on tiles, and which modules must run dense."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from traceback import walk_tb
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as hooks

from foveal.geometry.plan import Plan, grid
from foveal.ops import cut_tiles
from foveal.tiles import NoTileRule, TileTensor, run_dense, split
from foveal.tiles.dense import groups, lift
from foveal.tiles.nested import leaves, map_leaves
from foveal.tiles.rules import nchw
from foveal.tiles.tensor import SURVEY

ROUNDS = 6
"""Dense modules are added and tried again at most so often."""
TOLERANCE = 1e-4
"""Largest difference from the dense answer that counts as equal, relative to its largest value."""


@dataclass(frozen=True)
class Finding:
    """An operation that has no meaning on tiles.

    Attributes:
        operation: What was called, and how.
        module: Path of the innermost module that called it; empty for the network's own `forward`.
        kind: Class of that module.
    """

    operation: str
    module: str
    kind: str

    @property
    def remedy(self) -> str:
        """What the user can do about it."""
        if not self.module:
            return "move the call into a submodule and name that in dense_modules, or add a rule"
        return f"name '{self.module}' in dense_modules, or add a rule"


@dataclass(frozen=True)
class Report:
    """What is known about a network on tiles.

    Attributes:
        findings: Operations without a rule, in the order of their first call.
        declared: Dense modules that the network itself asks for.
        dense_modules: Further modules to run dense, the fewest that mend all findings; None if none can.
        difference: Largest difference between everything at level 0 and the dense network; None if it
            cannot run.
        scale: Largest value of the dense answer.
        notes: What else the user should know.
    """

    findings: tuple[Finding, ...]
    declared: tuple[str, ...]
    dense_modules: tuple[str, ...] | None
    difference: float | None
    scale: float
    notes: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether everything at level 0 gives the dense answer."""
        return self.difference is not None and self.difference <= TOLERANCE * max(self.scale, 1e-30)


def check_network(network: nn.Module, size: tuple[int, int] = (256, 256), tile: int = 32) -> Report:
    """Run a network on tiles and list everything that has no rule.

    Args:
        network: Module from images [1, 3, H, W] to logits; it is left as it is.
        size: Height and width of the random image that it runs on [px].
        tile: Side of a tile [px].

    Raises:
        ValueError: The network cannot even run on a plain image.
    """
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    network = copy.deepcopy(network).eval()
    with torch.no_grad():
        try:
            answer = network(image)
        except Exception as error:
            raise ValueError(f"the network fails on a plain image of {size[0]}x{size[1]}: {error}") from None
        dense, notes = _logits(answer)
        declared = tuple(getattr(network, "dense_modules", ()))
        findings, dense_modules = _mend(network, image, tile, declared)
        difference = None
        if dense_modules is not None:
            plan = Plan.uniform(1, size, tile)
            tiled, _ = _logits(_with_dense(network, (*declared, *dense_modules))(split(image, plan)))
            difference = float((_lift(tiled) - dense).abs().max())
    return Report(findings, declared, dense_modules, difference, float(dense.abs().max()), notes)


def _mend(
    network: nn.Module, image: Tensor, tile: int, declared: tuple[str, ...]
) -> tuple[tuple[Finding, ...], tuple[str, ...] | None]:
    """Survey, let the callers run dense, and survey again, until nothing is found."""
    first: tuple[Finding, ...] | None = None
    dense_modules: tuple[str, ...] = ()
    for _ in range(ROUNDS):
        found = _Survey(_with_dense(network, (*declared, *dense_modules))).run(image, tile)
        first = found if first is None else first
        if not found:
            return first, dense_modules
        callers = {finding.module for finding in found}
        if "" in callers or callers <= set(dense_modules):
            break
        dense_modules = _outermost({*dense_modules, *callers})
    return first or (), None


def _with_dense(network: nn.Module, names: tuple[str, ...]) -> nn.Module:
    network = copy.deepcopy(network)
    for name in names:
        run_dense(network.get_submodule(name))
    return network


def _outermost(names: set[str]) -> tuple[str, ...]:
    """Drop modules that lie within another one."""
    return tuple(sorted(n for n in names if not any(n.startswith(f"{other}.") for other in names)))


class _Survey:
    """One run of a network on tiles in which operations without a rule are noted instead of refused.

    What has no rule runs on dense maps; maps that come out of it, or of the module that called it, are cut
    into tiles again, so that the run goes on as it would with a dense module.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.names = {id(module): name for name, module in network.named_modules()}
        self.findings: dict[tuple[str, str], Finding] = {}
        self.path: list[nn.Module] = []
        self.like: TileTensor | None = None

    def run(self, image: Tensor, tile: int) -> tuple[Finding, ...]:
        """Run the network on tiles of two levels, and return what has no rule."""
        with self._listening():
            try:
                self.network(split(image, _two_levels(image, tile)))
            except Exception as error:
                self._note(
                    f"{type(error).__name__}: {_first_line(error)}", self._culprit(error.__traceback__)
                )
        return tuple(self.findings.values())

    @contextmanager
    def _listening(self) -> Iterator[None]:
        token = SURVEY.set(self._without_rule)
        handles = [
            hooks.register_module_forward_pre_hook(lambda module, args: self.path.append(module)),
            hooks.register_module_forward_hook(self._leave),
        ]
        try:
            yield
        finally:
            SURVEY.reset(token)
            for handle in handles:
                handle.remove()

    def _leave(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Cut what a module with a finding returns; None leaves its output as it is."""
        self.path.pop()
        inside = any(finding.module == self.names.get(id(module)) for finding in self.findings.values())
        return map_leaves(self._cut, output) if inside else None

    def _without_rule(
        self, error: NoTileRule, function: Callable[..., Any], args: Any, keywords: Mapping[str, Any]
    ) -> Any:
        self._note(_first_line(error).partition(" has no rule for tiles")[0], self._caller())
        self.like = next(leaf for leaf in leaves([args, dict(keywords)]) if isinstance(leaf, TileTensor))
        lifted = {name: map_leaves(_lift, value) for name, value in keywords.items()}
        return map_leaves(self._cut, function(*map_leaves(_lift, args), **lifted))

    def _caller(self) -> nn.Module:
        return next((m for m in reversed(self.path) if id(m) in self.names), self.network)

    def _culprit(self, trace: TracebackType | None) -> nn.Module:
        """The innermost module of the network in which an error arose."""
        owners = [frame.f_locals.get("self") for frame, _ in walk_tb(trace)]
        inside = [m for m in owners if isinstance(m, nn.Module) and id(m) in self.names]
        return inside[-1] if inside else self.network

    def _note(self, operation: str, module: nn.Module) -> None:
        path = self.names.get(id(module), "")
        self.findings.setdefault((operation, path), Finding(operation, path, type(module).__name__))

    def _cut(self, value: Any) -> Any:
        """Cut a dense map into the tiles of the survey; anything else stays."""
        if not isinstance(value, Tensor) or value.ndim != 4 or self.like is None:
            return value
        like, layout = self.like, self.like.layout
        sides = (layout.tile >> k for k in range(layout.tile.bit_length()) if layout.tile % (1 << k) == 0)
        for side in (like.side, *sides):
            if layout.extent(side, 0) == tuple(value.shape[2:]) != (1, 1):
                return like.with_tiles(cut_tiles(value, layout, side, 0))
        return value


def _two_levels(image: Tensor, tile: int) -> Plan:
    """Everything at level 0, one corner at level 1 if there is room."""
    rows, columns = grid((image.shape[2], image.shape[3]), tile)
    levels = torch.zeros(1, rows, columns, dtype=torch.int8)
    if rows * columns > 4:
        levels[:, :2, :2] = 1
    return Plan(levels, tile, (image.shape[2], image.shape[3]))


def _lift(value: Any) -> Any:
    """Compose the dense map of tiles, an explicit padding included; anything else stays."""
    if not isinstance(value, TileTensor):
        return value
    bare = replace(value, pad=(0, 0, 0, 0))
    (group,) = groups(value.layout)
    dense = lift(bare, nchw(bare).tiles, group)
    return F.pad(dense, value.pad) if any(value.pad) else dense


def _logits(answer: Any) -> tuple[Any, tuple[str, ...]]:
    """Find the logits in what a network returns, and say so if it is more than them."""
    if isinstance(answer, Tensor | TileTensor):
        return answer, ()
    found = [leaf for leaf in leaves(answer) if isinstance(leaf, Tensor | TileTensor)]
    if isinstance(answer, Mapping):
        found = [answer["out"]] if "out" in answer else found
    if not found:
        raise ValueError(f"the network returns a {type(answer).__name__} without a tensor; logits are needed")
    note = f"the network returns a {type(answer).__name__}; wrap it in a module that returns its logits"
    return found[0], (note,)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
