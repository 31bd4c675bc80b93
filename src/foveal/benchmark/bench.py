"""Honest speed: an adaptive method in turns with the fastest dense networks that can be had.

Everything is timed from an image in memory to labels at its size, in one process, turn by turn. The dense
network to beat is the fastest of the peers. `eta`, the speed-up times the work, says how much of the work
that is saved becomes time that is saved: 1 is all of it. Our own dense network is a row, never the one to
beat; where it is faster than every peer `eta` may exceed 1, and `own_speedup` is what adapting alone gives.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from foveal.benchmark.memory import peak_mb
from foveal.benchmark.runtimes import PEERS, Case, Runtime, difference, eager, fold_norms, prepare
from foveal.cost import Timing, alternate, count_macs
from foveal.fusion import faster
from foveal.geometry.plan import Plan
from foveal.hub.checkpoint import Model, load_model, save_model
from foveal.kernels.processor import processor
from foveal.methods import METHODS, Request, SegBlocks, Segmenter
from foveal.methods.base import check_image, classify
from foveal.models import MODELS
from foveal.ops import tuning
from foveal.tiles import split

OWN = "foveal"
"""This package's own dense network among the runtimes."""
TOLERANCE = 1e-2
"""Largest difference of a runtime's logits from eager PyTorch's, as a share of the largest logit."""
DECISIONS = 15
"""Most timed rounds of a decision."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class Task:
    """What is measured.

    Attributes:
        model: The network.
        image: [N, 3, H, W] in 0..1.
        method: Name in `foveal.methods.METHODS`.
        requests: What is asked of the method, row by row.
        peers: Names in `foveal.benchmark.runtimes.PEERS`, from `choose_peers`.
        repeat: Timed rounds.
        memory: Whether peak memory is measured, every row in a process of its own.
        keep: Whether the allocator keeps freed memory in those processes.
    """

    model: Model
    image: Tensor
    method: str
    requests: Sequence[Request]
    peers: Sequence[str]
    repeat: int = 20
    memory: bool = False
    keep: bool = True

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images [px]."""
        return self.image.shape[2], self.image.shape[3]


@dataclass(frozen=True)
class _Dense:
    """What eager PyTorch says: the measure of every other runtime."""

    logits: Tensor
    labels: Tensor
    macs: int


@dataclass(frozen=True)
class _Row:
    """A request, its method, and what is known before anything is timed."""

    request: Request
    method: Segmenter
    values: dict[str, Any]


@torch.no_grad()
def bench(task: Task, report: Report = lambda text: None) -> dict[str, Any]:
    """Measure a task.

    Args:
        task: What is measured.
        report: Called with what is done next.

    Returns:
        The keys machine, threads, torch, versions, model, weights (trained or random), size, batch, repeat,
        dense_macs, dense (rows with runtime, settings, ms, p95, error), best_static (the fastest peer),
        adaptive (rows with method, policy, budget, coarsest, tile, look, work, macs, agreement, ms, p95,
        speedup and eta over best_static, own_speedup over our own dense network, decide_ms, and peak_mb and
        dense_peak_mb if asked for) and left_out (sentences about rows that could not be run).

    Raises:
        ValueError: Something that is asked for does not exist or fit, no row can be run, or a peer cannot run
            the network or gives other logits than eager PyTorch.
    """
    check_image(task.image)
    fast = faster(copy.deepcopy(task.model.network).eval())
    methods = [_method(task.method, fast, request) for request in task.requests]
    report("the dense network, counted")
    dense = _run_dense(task)
    with tuning():
        fast(task.image.contiguous(memory_format=torch.channels_last))
        rows, left_out = _first_runs(task, methods, dense, report)
    peaks = _peaks(task, rows, report) if task.memory else [{} for _ in rows]
    statics, times = _measure(task, fast, rows, dense, report)
    best = min((row for row in statics if row["runtime"] != OWN), key=lambda row: row["ms"])
    report("the decisions")
    decisions = [_decide_ms(row.method, task) for row in rows]
    adaptive = [
        _adaptive_row(row, times[str(k)], best["ms"], times[OWN].median, decisions[k]) | peaks[k]
        for k, row in enumerate(rows)
    ]
    return head(task, dense.macs) | {
        "dense": statics,
        "best_static": {"runtime": best["runtime"], "ms": best["ms"]},
        "adaptive": adaptive,
        "left_out": left_out,
    }


def _method(name: str, network: nn.Module, request: Request) -> Segmenter:
    if name not in METHODS:
        raise ValueError(f"no method named '{name}'; available: {', '.join(METHODS)}")
    return METHODS[name].on_request(network, request).eval()


@torch.no_grad()  # not inference mode, under which less is counted
def _run_dense(task: Task) -> _Dense:
    """Run the network as it is, and count."""
    network = copy.deepcopy(task.model.network).eval()
    found: list[tuple[Tensor, Tensor]] = []

    def run() -> None:
        logits = network(task.image)
        found.append((logits, classify(logits, task.size)))

    macs = count_macs(run).total
    return _Dense(*found[0], macs)


def _first_runs(
    task: Task, methods: Sequence[Segmenter], dense: _Dense, report: Report
) -> tuple[list[_Row], list[str]]:
    """Run every row once; say which are left out because the budget does not pay for any plan."""
    rows, left_out = [], []
    for request, method in zip(task.requests, methods, strict=True):
        report(f"budget {request.budget:g}, coarsest {request.coarsest}")
        try:
            rows.append(_Row(request, method, _first_run(task, request, method, dense.labels)))
        except ValueError as error:
            left_out.append(f"budget {request.budget:g} with coarsest {request.coarsest}: {error}")
            if len(left_out) == len(methods):
                raise
    return rows, left_out


@torch.no_grad()  # not inference mode, under which less is counted
def _first_run(task: Task, request: Request, method: Segmenter, labels: Tensor) -> dict[str, Any]:
    """Compare with the dense labels, and count."""
    image = task.image.contiguous(memory_format=torch.channels_last)
    prediction = method(image)
    return {
        "method": task.method,
        "policy": request.policy,
        "budget": request.budget,
        "coarsest": request.coarsest,
        "tile": request.tile,
        "look": request.look,
        "work": float(prediction.trace.work.mean()),
        "macs": count_macs(lambda: method(image).labels).total,
        "agreement": round(float((prediction.labels == labels).double().mean()), 5),
    }


def _measure(
    task: Task, fast: nn.Module, rows: Sequence[_Row], dense: _Dense, report: Report
) -> tuple[list[dict[str, Any]], dict[str, Timing]]:
    """Prepare and check the runtimes, and time them in turns with the rows; return the dense rows, too."""
    with tempfile.TemporaryDirectory() as folder:
        runtimes = _runtimes(task, fast, Path(folder), report)
        errors = {name: _check(name, runtime, task.image, dense.logits) for name, runtime in runtimes.items()}
        report(f"{len(runtimes) + len(rows)} runs in turns, {task.repeat} rounds")
        times = _alternate(task, runtimes, rows)
    statics = [_dense_row(name, runtimes[name], times[name], errors[name]) for name in runtimes]
    return statics, times


def _runtimes(task: Task, fast: nn.Module, folder: Path, report: Report) -> dict[str, Runtime]:
    """Prepare the peers, and our own dense network last."""
    case = Case(fold_norms(task.model.network), task.image.contiguous(), torch.get_num_threads(), folder)
    runtimes = {}
    for name in task.peers:
        report(f"the peer '{name}': {PEERS[name].says}")
        runtimes[name] = prepare(name, case)
    return runtimes | {OWN: Runtime(fast, torch.channels_last, "channels last")}


@torch.inference_mode()
def _check(name: str, runtime: Runtime, image: Tensor, logits: Tensor) -> float:
    """Return how far a runtime's logits are from those of eager PyTorch.

    Raises:
        ValueError: Too far.
    """
    found = runtime.run(runtime.lay(image))
    error = difference(found, logits) if found.shape == logits.shape else float("inf")
    if not error <= TOLERANCE:
        raise ValueError(
            f"the logits of '{name}' differ from eager PyTorch's by {error:.2g} of the largest, at most "
            f"{TOLERANCE:g} is allowed; leave it out of --peers"
        )
    return error


def _alternate(task: Task, runtimes: Mapping[str, Runtime], rows: Sequence[_Row]) -> dict[str, Timing]:
    """Time runtimes, by name, and rows, by number, turn by turn up to the labels."""
    runs: dict[str, Callable[[], Tensor]] = {
        name: partial(_labels, runtime.run, runtime.lay(task.image), task.size)
        for name, runtime in runtimes.items()
    }
    image = task.image.contiguous(memory_format=torch.channels_last)
    for k, row in enumerate(rows):
        runs[str(k)] = partial(_predict, row.method, image)
    return alternate(runs, task.repeat)


def _labels(run: Callable[[Tensor], Tensor], image: Tensor, size: tuple[int, int]) -> Tensor:
    return classify(run(image), size)


def _predict(method: Segmenter, image: Tensor) -> Tensor:
    return method(image).labels


def _dense_row(name: str, runtime: Runtime, time: Timing, error: float) -> dict[str, Any]:
    row = {"runtime": name, "settings": runtime.settings, "ms": round(time.median, 2)}
    return row | {"p95": round(time.p95, 2), "error": float(f"{error:.2g}")}


def _adaptive_row(
    row: _Row, time: Timing, best_ms: float, own_ms: float, decide_ms: float | None
) -> dict[str, Any]:
    work, speedup = row.values["work"], best_ms / time.median
    return row.values | {
        "work": round(work, 4),
        "ms": round(time.median, 2),
        "p95": round(time.p95, 2),
        "speedup": round(speedup, 4),
        "eta": round(speedup * work, 4),
        "own_speedup": round(own_ms / time.median, 4),
        "decide_ms": None if decide_ms is None else round(decide_ms, 2),
    }


@torch.inference_mode()
def _decide_ms(method: Segmenter, task: Task) -> float | None:
    """Time what is not the network on pixels [ms]: the policy, and the tables of a plan seen first.

    The tables are those that the network asked for, built anew. None for a method that does not decide once
    before the network.
    """
    if not isinstance(method, SegBlocks):
        return None
    image = task.image.contiguous(memory_format=torch.channels_last)
    view, _ = method._look(image)
    known = method.policy(view)
    method.network(split(image, known)).dense()

    def fresh() -> None:
        Plan(known.levels, known.tile, known.size).layout.rebuild_tables(known.layout)

    times = alternate({"policy": lambda: method.policy(view), "tables": fresh}, DECISIONS)
    return times["policy"].median + times["tables"].median


def _peaks(task: Task, rows: Sequence[_Row], report: Report) -> list[dict[str, float]]:
    """Measure what one run takes at its peak [MB]: every row, and the dense network in eager PyTorch."""
    with tempfile.TemporaryDirectory() as folder:
        save_model(task.model.network, task.model.card, Path(folder) / "model", half=False)
        save_file({"image": task.image.contiguous()}, Path(folder) / "image.safetensors")
        report("memory, in processes of their own")
        dense = peak_mb(_fresh_dense, Path(folder), keep=task.keep)
        own = [peak_mb(_fresh_method, Path(folder), task.method, row.request, keep=task.keep) for row in rows]
    return [{"peak_mb": peak, "dense_peak_mb": dense} for peak in own]


def _fresh_dense(folder: Path) -> Callable[[], Tensor]:
    """Load what `_peaks` saved, for one run of the dense network."""
    runtime = eager(fold_norms(load_model(folder / "model.safetensors").network))
    image = runtime.lay(load_file(folder / "image.safetensors")["image"])
    return partial(_labels, runtime.run, image, (image.shape[2], image.shape[3]))


def _fresh_method(folder: Path, name: str, request: Request) -> Callable[[], Tensor]:
    """Load what `_peaks` saved, for one run of the method."""
    method = _method(name, faster(load_model(folder / "model.safetensors").network), request)
    image = load_file(folder / "image.safetensors")["image"].clone(memory_format=torch.channels_last)
    return partial(_predict, method, image)


def head(task: Task, macs: int) -> dict[str, Any]:
    """Say what was measured on what."""
    packages = sorted({package for name in task.peers for package in PEERS[name].packages})
    return {
        "machine": processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "versions": {package: version(package) for package in packages},
        "model": task.model.name,
        "weights": "random" if task.model.name in MODELS else "trained",
        "size": list(task.size),
        "batch": len(task.image),
        "repeat": task.repeat,
        "dense_macs": macs,
    }
