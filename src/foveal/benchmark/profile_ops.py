"""Speed operation by operation, dense and on the tiles of one plan: where the time of a network goes.

The fused network runs node by node of its graph, dense and on tiles in turns. What gives no map, such as the
size of one, counts with the map that follows. A slower operation shows in its own row, and in the sum of its
stage: all that is in one submodule of encoder or head.
"""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from foveal.benchmark.operation_results import (
    Around,
    OperationRow,
    OperationsResult,
    PlanRow,
    Speed,
    StageRow,
    Whole,
)
from foveal.benchmark.task import Report, Task, describe_task
from foveal.cost import Timing, alternate, count_macs
from foveal.fusion import CannotFuse, fuse
from foveal.fusion.layers import Convolve
from foveal.geometry.plan import Plan
from foveal.methods import METHODS, SegBlocks, SegBlocksConfig
from foveal.methods.base import check_image
from foveal.ops import Convolution, classify, tuning
from foveal.ops.convolve.autotune import choose
from foveal.ops.convolve.native import supports
from foveal.tiles import TileTensor, split

WARMUP = 2
"""Rounds that are not timed."""
SIDES = "dense", "tiles"
STAGE = 2
"""Parts of a module's path that name its stage."""
ALL = "all"


@dataclass(frozen=True)
class _Place:
    """A node of the graph on one side.

    Attributes:
        shape: Of the map that it gives [N, C, H, W].
        macs: What was counted [MAC].
        algorithm: That computes it, if it is a convolution.
    """

    shape: tuple[int, ...]
    macs: int
    algorithm: str | None


@dataclass(frozen=True)
class _Side:
    """What is known of the nodes, dense or on tiles: what gives a map, and times of all [ms]."""

    places: dict[str, _Place] = field(default_factory=dict)
    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def ms(self, name: str) -> float:
        """Median of a node [ms]."""
        return statistics.median(self.times[name][WARMUP:])


def operations(task: Task, report: Report = lambda text: None) -> OperationsResult:
    """Time the operations of a network, dense and on the plan of the task's first config.

    Args:
        task: What is measured; runtimes and memory are not.
        report: Called with what is done next.

    Raises:
        ValueError: The network cannot be fused, or the method does not decide once by a plan.
    """
    check_image(task.image)
    network = _fused(task.model.network)
    method = _method(network, task)
    image = task.image.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        plan = method.decide(image)
    report("which algorithms are fastest")
    with torch.no_grad(), tuning():
        network(image)
        network(split(image, plan))
    report(f"{len(network.graph.nodes)} operations, {task.repeat} rounds")
    sides = _measure(network, image, plan, task.repeat)
    nodes = list(_rows(network, sides))
    whole, around = _whole(method, image, plan, task.repeat)
    return OperationsResult(
        **vars(describe_task(task, sum(row.dense_macs for row in nodes))),
        plan=_plan_row(task, plan),
        nodes=tuple(nodes),
        stages=tuple(_stages(nodes)),
        whole=whole,
        around=around,
    )


def _fused(network: nn.Module) -> fx.GraphModule:
    try:
        fused = fuse(copy.deepcopy(network))
    except CannotFuse as error:
        raise ValueError(
            f"operations are timed one by one in the graph of the network, and {error}"
        ) from None
    assert isinstance(fused, fx.GraphModule)
    return fused


def _method(network: nn.Module, task: Task) -> SegBlocks:
    name, config = task.method, task.configs[0]
    if METHODS.get(name) is not SegBlocks:
        raise ValueError(f"operations are timed on the one plan of the method segblocks, given '{name}'")
    assert isinstance(config, SegBlocksConfig), "settings are those of the method"
    return SegBlocks.from_config(network, config, task.model.resources).eval()


def _measure(network: fx.GraphModule, image: Tensor, plan: Plan, repeat: int) -> dict[str, _Side]:
    """Look at every node once, then time all of them round by round."""
    sides = {name: _Side() for name in SIDES}
    inputs = {"dense": lambda: image, "tiles": lambda: split(image, plan)}
    with torch.no_grad():  # not inference mode, under which less is counted
        for name, side in sides.items():
            _Look(network, side).run(inputs[name]())
    with torch.inference_mode():
        for _ in range(WARMUP + repeat):
            for name, side in sides.items():
                _Clock(network, side).run(inputs[name]())
    return sides


class _Look(fx.Interpreter):
    """Notes what every node gives, counts its MACs, and asks which algorithm computes it."""

    def __init__(self, network: fx.GraphModule, side: _Side) -> None:
        super().__init__(network)
        self._side = side

    def run_node(self, n: fx.Node) -> Any:
        """Run a node."""
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        found: list[Any] = []
        macs = count_macs(lambda: found.append(getattr(self, n.op)(n.target, args, kwargs))).total
        if n.op.startswith("call") and isinstance(found[0], Tensor | TileTensor):
            module = self.module.get_submodule(str(n.target)) if n.op == "call_module" else None
            algorithm = _algorithm(module, args[0]) if isinstance(module, Convolve) else None
            self._side.places[n.name] = _Place(tuple(found[0].shape), macs, algorithm)
        return found[0]


class _Clock(fx.Interpreter):
    """Times every node."""

    def __init__(self, network: fx.GraphModule, side: _Side) -> None:
        super().__init__(network)
        self._side = side

    def run_node(self, n: fx.Node) -> Any:
        """Run a node."""
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        start = time.perf_counter()
        value = getattr(self, n.op)(n.target, args, kwargs)
        self._side.times[n.name].append(1000 * (time.perf_counter() - start))
        return value


def _algorithm(module: Convolve, x: Tensor | TileTensor) -> str:
    """Name what computes a convolution."""
    tiles, layout = (x.tiles, x.layout) if isinstance(x, TileTensor) else (x, None)
    c = module.convolution
    return choose(tiles, layout, c, lambda name: None) if supports(tiles, layout, c) else "torch"


def _rows(network: fx.GraphModule, sides: Mapping[str, _Side]) -> Iterable[OperationRow]:
    waiting = dict.fromkeys(SIDES, 0.0)
    for node in network.graph.nodes:
        for side_name, side in sides.items():
            waiting[side_name] += side.ms(node.name)
        if node.name not in sides["dense"].places:
            continue
        dense, tiles = (sides[side_name].places[node.name] for side_name in SIDES)
        speed = _speed((dense.macs, tiles.macs), (waiting["dense"], waiting["tiles"]))
        name, stage, operation = _place_in_network(network, node)
        yield OperationRow(
            name=name,
            stage=stage,
            operation=operation,
            shape=dense.shape,
            dense_algorithm=dense.algorithm,
            tiles_algorithm=tiles.algorithm,
            **vars(speed),
        )
        waiting = dict.fromkeys(SIDES, 0.0)


def _speed(macs: tuple[int, int], ms: tuple[float, float]) -> Speed:
    """Relate multiply-accumulates to time [ms], dense and on tiles."""
    dense, tiles = (round(2e-6 * m / t, 2) if t else 0.0 for m, t in zip(macs, ms, strict=True))
    return Speed(
        dense_macs=macs[0],
        dense_ms=round(ms[0], 4),
        dense_gflops=dense,
        tiles_macs=macs[1],
        tiles_ms=round(ms[1], 4),
        tiles_gflops=tiles,
    )


def _place_in_network(network: fx.GraphModule, node: fx.Node) -> tuple[str, str, str]:
    """Return the name of a node, its stage, and what it does."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    path = stack[-1][0] if stack else ""
    stage = ".".join(path.split(".")[:STAGE]) or "network"
    if node.op != "call_module":
        name = getattr(node.target, "__name__", str(node.target))
        return f"{path}.{node.name}".lstrip("."), stage, name
    module = network.get_submodule(str(node.target))
    kind = geometry(module.convolution) if isinstance(module, Convolve) else type(module).__name__
    return path or node.name, stage, kind


def geometry(c: Convolution) -> str:
    """Write a convolution in a few words: 3x3/2 64>128 shortcut clamp."""
    outputs, channels = c.weight.shape[0], c.weight.shape[1] * c.groups
    window = "x".join(map(str, c.kernel))
    parts = [
        f"{window}{f'/{c.stride}' * (c.stride > 1)}{f'*{c.dilation}' * (c.dilation > 1)}",
        f"{channels}>{outputs}",
        f"{c.groups} groups" if c.groups > 1 else "",
        "norm" if c.prologue is not None else "",
        "shortcut" if c.residual_scale is not None else "",
        "clamp" if (c.low, c.high) != (-math.inf, math.inf) else "",
    ]
    return " ".join(filter(None, parts))


def _stages(nodes: Sequence[OperationRow]) -> list[StageRow]:
    """Sum the rows of every stage, in the order in which they run, and those of all."""
    rows = []
    for name in dict.fromkeys([*(row.stage for row in nodes), ALL]):
        within = [row for row in nodes if name in (row.stage, ALL)]
        macs = sum(row.dense_macs for row in within), sum(row.tiles_macs for row in within)
        ms = sum(row.dense_ms for row in within), sum(row.tiles_ms for row in within)
        rows.append(StageRow(stage=name, **vars(_speed(macs, ms))))
    return rows


def _whole(method: SegBlocks, image: Tensor, plan: Plan, repeat: int) -> tuple[Whole, Around]:
    """Time the network in one call, and all that is done around it."""
    size = image.shape[2], image.shape[3]
    with torch.inference_mode():
        view, tiles = method.view(image)[0], split(image, plan)
        out = method.network(tiles)
        logits = out.dense()
    runs = {
        "dense_ms": lambda: method.network(image),
        "tiles_ms": lambda: method.network(tiles),
        "look": lambda: method.view(image),
        "policy": lambda: method.policy(view),
        "tables": lambda: Plan(plan.levels, plan.tile, plan.size).layout.rebuild_tables(plan.layout),
        "split": lambda: split(image, plan),
        "compose": out.dense,
        "classify": lambda: classify(logits, size),
    }
    times: dict[str, Timing] = alternate(runs, repeat)
    ms = {name: round(timing.median, 4) for name, timing in times.items()}
    return Whole(ms.pop("dense_ms"), ms.pop("tiles_ms")), Around(**ms)


def _plan_row(task: Task, plan: Plan) -> PlanRow:
    config = task.configs[0]
    return PlanRow(
        budget=config.budget,
        max_level=config.whole("max_level"),
        tile=plan.tile,
        policy=str(config.settings["policy"]),
        work=round(float(plan.work.mean()), 4),
        tiles=int(plan.tiles.sum()),
    )
