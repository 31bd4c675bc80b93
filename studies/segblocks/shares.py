"""Where the time of an adaptive run goes: decide, cut, borrow borders, compose, and the network itself.

The parts are run one after another for a new plan, as for an image that was never seen, so that they add up
to the whole. Inside the network the operations that know about tiles are timed where they are called.
Source: the module times of SegBlocks (Verelst and Tuytelaars, TPAMI 2022), table VI and section 4.4.
"""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from statistics import median
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from foveal.fusion import faster
from foveal.geometry.plan import Plan
from foveal.kernels.abi import plain
from foveal.methods import SegBlocks
from foveal.methods.base import check_image
from foveal.ops import classify, compose_tiles, cut_tiles, fetch_halo, tuning
from foveal.ops.op import Op
from foveal.policies import Policy
from foveal.tiles import TileTensor, split
from studies.segblocks.memory import ENGINES, check_engine

T = TypeVar("T")
Run = Callable[..., Tensor]
PARTS = {
    "policy": "the look and the decision",
    "tables": "where every borrowed sample comes from, once a plan",
    "split": "the image is cut into tiles (BlockSample)",
    "border": "borders are borrowed in passes of their own (BlockPad)",
    "context": "the map is composed and cut again for global context",
    "combine": "the logits are composed (BlockCombine)",
    "labels": "logits are enlarged and become labels",
    "rest": "everything else in the network",
}
"""What each part is."""
INSEPARABLE = (
    "in C most windows are read through the tables: that, and averages over finer samples, is in the rest; "
    "border is what oneDNN's convolutions still gather"
)
WATCHED: tuple[tuple[str, Op], ...] = (
    ("border", fetch_halo),
    ("context", compose_tiles),
    ("context", cut_tiles),
)
"""What is timed inside the network; of one inside another, the outer one counts."""
WARMUP = 2

SOURCE = "SegBlocks (TPAMI 2022), table VI: Cityscapes val, GTX 1080 Ti"
PAPER: list[dict[str, Any]] = [
    {"run": run, "part": part, "seconds": seconds, "share": round(seconds / whole, 4), "source": SOURCE}
    for run, whole, times in (
        ("RN18, share 0.4", 5.8, (0.04, 0.11, 0.68, 0.02)),
        ("RN18, share 0.2", 4.9, (0.04, 0.12, 0.56, 0.02)),
        ("RN50, share 0.4", 11.6, (0.04, 0.12, 0.75, 0.04)),
        ("RN50, share 0.2", 9.3, (0.04, 0.13, 0.61, 0.03)),
    )
    for part, seconds in zip(
        ("policy", "split", "border", "combine", "rest"), (*times, round(whole - sum(times), 2)), strict=True
    )
]


def shares(
    model: nn.Module,
    image: Tensor,
    policy: Policy,
    repeat: int = 10,
    engines: Sequence[str] = ENGINES,
) -> list[dict[str, Any]]:
    """Measure what every part of a run takes, engine by engine, the engines alternating.

    Args:
        model: Network from images [N, 3, H, W] to logits.
        image: [N, 3, H, W] in 0..1.
        policy: Decides about the image in every round.
        repeat: Timed rounds.
        engines: "pytorch" (a border pass before every window), "native" (fused, in C), or both.

    Returns:
        Rows with the keys engine, part (a key of `PARTS`, or "all"), ms (median; that of "all" is their sum),
        share (of all), work, note (empty, or what cannot be separated).
    """
    check_image(image)
    image = image.contiguous(memory_format=torch.channels_last)
    measured = {engine: _Engine(check_engine(engine), model, policy, image) for engine in engines}
    rounds: dict[str, list[dict[str, float]]] = {engine: [] for engine in engines}
    for _ in range(WARMUP + repeat):
        for name, engine in measured.items():
            rounds[name].append(engine.run(image))
    return [row for name in engines for row in _rows(name, rounds[name][WARMUP:], measured[name].work)]


class _Engine:
    """A method as one engine runs it, and what it needs to know of its tables."""

    def __init__(self, name: str, model: nn.Module, policy: Policy, image: Tensor) -> None:
        native = name == "native"
        network = copy.deepcopy(model).eval()
        self._method = SegBlocks(faster(network) if native else network, policy).eval()
        self._around = nullcontext if native else plain
        plan = self._first(image)
        self._known = plan.layout
        self.work = round(float(plan.work.mean()), 4)

    @torch.no_grad()
    def _first(self, image: Tensor) -> Plan:
        with self._around(), tuning():
            plan = self._method.policy(self._method.view(image)[0])
            self._method.network(split(image, plan)).dense()
        return plan

    @torch.inference_mode()
    def run(self, image: Tensor) -> dict[str, float]:
        """Run once, and return the time of every part [ms]."""
        method, clock = self._method, _Clock()
        with self._around():
            plan = clock.time("policy", lambda: method.policy(method.view(image)[0]))
            plan = Plan(plan.levels, plan.tile, plan.size)  # whatever the policy knows of an earlier round
            clock.time("tables", lambda: plan.layout.rebuild_tables(self._known))
            tiles = clock.time("split", lambda: split(image, plan))
            out: TileTensor = clock.watch(lambda: method.network(tiles))
            logits = clock.time("combine", out.dense)
            clock.time("labels", lambda: classify(logits, (image.shape[2], image.shape[3])))
        return clock.ms


class _Clock:
    """Sums the time of parts [ms]."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = defaultdict(float)
        self._watching = False

    def time(self, part: str, run: Callable[[], T]) -> T:
        """Run, and add what it took to a part."""
        start = time.perf_counter()
        value = run()
        self.ms[part] += 1000 * (time.perf_counter() - start)
        return value

    def watch(self, run: Callable[[], T]) -> T:
        """Run a network: the operations that are watched count by themselves, the others as the rest."""
        with _replaced(self._timed):
            self._watching = True
            value = self.time("rest", run)
            self._watching = False
        self.ms["rest"] -= sum(self.ms.get(part, 0.0) for part in dict(WATCHED))
        return value

    def _timed(self, part: str, compute: Run) -> Run:
        def run(*args: Any) -> Tensor:
            if not self._watching:
                return compute(*args)
            self._watching = False
            try:
                return self.time(part, lambda: compute(*args))
            finally:
                self._watching = True

        return run


@contextmanager
def _replaced(timed: Callable[[str, Run], Run]) -> Iterator[None]:
    """Let the watched operations be timed for a while."""
    before = [op.backends for _, op in WATCHED]
    try:
        for part, op in WATCHED:
            op.backends = tuple(row._replace(run=timed(part, row.run)) for row in op.backends)
        yield
    finally:
        for (_, op), backends in zip(WATCHED, before, strict=True):
            op.backends = backends


def _rows(engine: str, rounds: list[dict[str, float]], work: float) -> Iterator[dict[str, Any]]:
    ms = {part: median(found.get(part, 0.0) for found in rounds) for part in PARTS}
    whole = sum(ms.values())
    for part, value in (ms | {"all": whole}).items():
        note = INSEPARABLE if (engine, part) == ("native", "border") else ""
        row = {"engine": engine, "part": part, "ms": round(value, 4), "share": round(value / whole, 5)}
        yield row | {"work": work, "note": note}


def draw_shares(rows: list[dict[str, Any]], axes: Any) -> None:
    """Draw a bar of parts for every engine, and one for the paper, on matplotlib axes."""
    paper = [row | {"engine": f"paper: {row['run']}"} for row in PAPER if row["run"] == "RN18, share 0.4"]
    found = [row for row in [*rows, *paper] if row["part"] in PARTS]
    engines = list(dict.fromkeys(row["engine"] for row in found))
    for place, engine in enumerate(engines):
        left = 0.0
        for colour, part in enumerate(PARTS):
            share = sum(100 * r["share"] for r in found if (r["engine"], r["part"]) == (engine, part))
            label = part if place == 0 else None
            axes.barh(place, share, left=left, color=f"C{colour}", label=label)
            if share > 3:
                axes.text(left + share / 2, place, f"{share:.0f}", ha="center", va="center", color="white")
            left += share
    axes.set_yticks(range(len(engines)), engines)
    axes.invert_yaxis()
    axes.set_xlabel("share of the time [%]")
    axes.legend(ncols=4, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0))
