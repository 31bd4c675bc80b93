"""Survey of a network: which of its operations have no meaning on tiles, and which modules must run dense."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from traceback import walk_tb
from types import TracebackType
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as hooks

from foveal.geometry.plan import Plan
from foveal.tiles import NoTileRule, TileTensor, WrongGeometry, run_dense, split
from foveal.tiles.dense import groups, lift, lower
from foveal.tiles.nested import leaves, map_leaves
from foveal.tiles.rules import nchw
from foveal.tiles.tensor import SURVEY

ROUNDS = 6
"""Dense modules are added and tried again at most so often."""


@dataclass(frozen=True)
class Finding:
    """An operation that has no meaning on tiles.

    Attributes:
        operation: What was called, and how.
        module: Path of the innermost module that called it; empty for the network's own `forward`.
        kind: Class of that module.
        geometry: What to change about image, tile or stride if that is the reason; empty if it is not.
    """

    operation: str
    module: str
    kind: str
    geometry: str = ""

    @property
    def where(self) -> str:
        """The module and its class."""
        return f"{self.module} ({self.kind})" if self.module else f"forward of {self.kind}"

    @property
    def remedy(self) -> str:
        """What the user can do about it."""
        if self.geometry:
            return self.geometry
        if not self.module:
            return "move the call into a submodule and name that in dense_modules, or add a rule"
        return f"name '{self.module}' in dense_modules, or add a rule"


def find_dense_modules(
    network: nn.Module, image: Tensor, plan: Plan, declared: tuple[str, ...]
) -> tuple[tuple[Finding, ...], tuple[str, ...] | None]:
    """Survey, let the callers run dense, and survey again, until nothing is found.

    Args:
        network: Module from images to logits, in evaluation mode; it is left as it is.
        image: What it runs on.
        plan: Tiles of that image, of more than one level if possible.
        declared: Modules that run dense anyway.

    Returns:
        What the first survey found, and the fewest modules that mend it; None if none do.
    """
    first: tuple[Finding, ...] | None = None
    dense_modules: tuple[str, ...] = ()
    for _ in range(ROUNDS):
        found = _Survey(with_dense(network, (*declared, *dense_modules))).run(image, plan)
        first = found if first is None else first
        if not found:
            return first, dense_modules
        callers = {finding.module for finding in found}
        if any(finding.geometry for finding in found):
            return first or (), None
        stuck = "" in callers or callers <= set(dense_modules)
        dense_modules = _outermost({*dense_modules, *(callers - {""})})
        if stuck:
            break
    return first or (), _wider(network, image, plan, declared, {*dense_modules})


def _wider(
    network: nn.Module, image: Tensor, plan: Plan, declared: tuple[str, ...], names: set[str]
) -> tuple[str, ...] | None:
    """Let the modules around some run dense, then those around these; None if only all of it would mend it.

    So are transformers found whose tokens are no map: their backbone as a whole sees the map.
    """
    while names and all("." in name for name in names):
        names = set(_outermost({name.rpartition(".")[0] for name in names}))
        if not _Survey(with_dense(network, (*declared, *names))).run(image, plan):
            return tuple(sorted(names))
    return None


def with_dense(network: nn.Module, names: tuple[str, ...]) -> nn.Module:
    """Return a copy of a network in which some modules run dense."""
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
        self.given: list[TileTensor] = []

    def run(self, image: Tensor, plan: Plan) -> tuple[Finding, ...]:
        """Run the network on tiles, and return what has no rule."""
        with self._listening():
            try:
                self.network(split(image, plan))
            except Exception as error:
                self._note(
                    f"{type(error).__name__}: {_first_line(error)}", self._culprit(error.__traceback__), ""
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
        what = _first_line(error).partition(" has no rule for tiles")[0]
        geometry = error.advice if isinstance(error, WrongGeometry) else ""
        self._note(what.removesuffix(f"; {geometry}").rstrip(","), self._caller(), geometry)
        self.given = [leaf for leaf in leaves([args, dict(keywords)]) if isinstance(leaf, TileTensor)]
        lifted = {name: map_leaves(_lift, value) for name, value in keywords.items()}
        return map_leaves(self._cut, function(*map_leaves(_lift, args), **lifted))

    def _caller(self) -> nn.Module:
        return next((m for m in reversed(self.path) if id(m) in self.names), self.network)

    def _culprit(self, trace: TracebackType | None) -> nn.Module:
        """The innermost module of the network in which an error arose."""
        owners = [frame.f_locals.get("self") for frame, _ in walk_tb(trace)]
        inside = [m for m in owners if isinstance(m, nn.Module) and id(m) in self.names]
        return inside[-1] if inside else self.network

    def _note(self, operation: str, module: nn.Module, geometry: str) -> None:
        path = self.names.get(id(module), "")
        finding = Finding(operation, path, type(module).__name__, geometry)
        self.findings.setdefault((operation, path), finding)

    def _cut(self, value: Any) -> Any:
        """Cut a dense map into the tiles of the survey; anything else stays."""
        if not isinstance(value, Tensor) or not self.given:
            return value
        try:
            return lower(self.given, groups(self.given[0].layout), [value])
        except NoTileRule:
            return value


def _lift(value: Any) -> Any:
    """Compose the dense map of tiles, an explicit padding included; anything else stays."""
    if not isinstance(value, TileTensor):
        return value
    bare = replace(value, pad=(0, 0, 0, 0))
    (group,) = groups(value.layout)
    dense = lift(bare, nchw(bare).tiles, group)
    return F.pad(dense, value.pad) if any(value.pad) else dense


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
