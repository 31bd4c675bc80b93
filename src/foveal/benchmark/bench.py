"""Speed: an adaptive method timed in turns with the dense network in the fastest runtimes available.

Everything is timed from an image in memory to labels at its size, in one process, turn by turn. The dense
network to beat is the fastest static runtime of the same precision; that of any precision is named beside it.
`eta`, the speed-up times the work, says how much of the work that is saved becomes time that is saved: 1 is
all of it. Our own dense network is a row, never the one to beat; where it is faster than every runtime `eta`
may exceed 1, and `own_speedup` is what adapting alone gives.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from foveal.benchmark.decision import decision_ms
from foveal.benchmark.peaks import measure_peaks
from foveal.benchmark.results import BenchResult, BenchRow, DenseRow, Fastest
from foveal.benchmark.runtimes import (
    Case,
    Choice,
    Precision,
    Runtime,
    difference,
    fold_norms,
    prepare,
)
from foveal.benchmark.runtimes.own import OWN, own_runtime
from foveal.benchmark.task import Report, Task, describe_task
from foveal.cost import Timing, alternate, count_macs
from foveal.fusion import faster
from foveal.methods import METHODS, AdaptiveSegmenter, MethodConfig, Resources
from foveal.methods.base import check_image
from foveal.ops import classify, tuning
from foveal.storage.names import find

PRECISION: Precision = "f32"
"""Precision of the adaptive rows."""
TOLERANCE = 1e-2
"""Largest difference of a runtime's logits in f32 from eager PyTorch's, as a share of the largest logit."""


@dataclass(frozen=True)
class _Dense:
    """What eager PyTorch says: the measure of every other runtime."""

    logits: Tensor
    labels: Tensor
    macs: int


@dataclass(frozen=True)
class _Candidate:
    """Settings, their method, and what is known before anything is timed."""

    config: MethodConfig
    method: AdaptiveSegmenter
    work: float
    macs: int
    agreement: float


@torch.no_grad()
def bench(task: Task, report: Report = lambda text: None) -> BenchResult:
    """Measure a task.

    Args:
        task: What is measured.
        report: Called with what is done next.

    Raises:
        ValueError: Something that is asked for does not exist or fit, no row can be run, no runtime of the
            precision of the adaptive rows is given, or a runtime cannot run the network or gives other logits
            than eager PyTorch.
    """
    check_image(task.image)
    if not any(precision == PRECISION and name != OWN for name, precision in task.runtimes):
        raise ValueError(
            f"adaptive rows are in {PRECISION} and so must be a runtime to compare with; give one"
        )
    fast = faster(copy.deepcopy(task.model.network).eval())
    kind, resources = find(task.method, METHODS, "method"), Resources(task.model.policy)
    methods = [kind.from_config(fast, config, resources).eval() for config in task.configs]
    report("the dense network, counted")
    dense = _run_dense(task)
    with tuning():
        fast(task.image.contiguous(memory_format=torch.channels_last))
        rows, left_out = _first_runs(task, methods, dense, report)
    dense_peak, peaks = None, [None] * len(rows)
    if task.memory:
        report("memory, in processes of their own")
        asked = [row.config for row in rows]
        dense_peak, peaks = measure_peaks(task.model, task.image, task.method, asked, task.keep)  # type: ignore[assignment]
    statics, times = _measure(task, fast, rows, dense, report)
    best, own = _fastest(statics, PRECISION), times[OWN].median
    report("the decisions")
    adaptive = [
        _row(task, row, times[str(k)], (best.ms, own), (peaks[k], dense_peak)) for k, row in enumerate(rows)
    ]
    return BenchResult(
        **vars(describe_task(task, dense.macs)),
        dense=tuple(statics),
        best_static=best,
        best_static_any=_fastest(statics, None),
        adaptive=tuple(adaptive),
        left_out=tuple(left_out),
    )


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
    task: Task, methods: Sequence[AdaptiveSegmenter], dense: _Dense, report: Report
) -> tuple[list[_Candidate], list[str]]:
    """Run every row once; say which are left out because the budget does not pay for any plan."""
    rows, left_out = [], []
    for config, method in zip(task.configs, methods, strict=True):
        report(f"budget {config.budget:g}, {config.title}")
        try:
            rows.append(_first_run(task, config, method, dense.labels))
        except ValueError as error:
            left_out.append(f"budget {config.budget:g}, {config.title}: {error}")
            if len(left_out) == len(methods):
                raise
    return rows, left_out


@torch.no_grad()  # not inference mode, under which less is counted
def _first_run(task: Task, config: MethodConfig, method: AdaptiveSegmenter, labels: Tensor) -> _Candidate:
    """Compare with the dense labels, and count."""
    image = task.image.contiguous(memory_format=torch.channels_last)
    prediction = method(image)
    return _Candidate(
        config,
        method,
        work=float(prediction.trace.work.mean()),
        macs=count_macs(lambda: method(image).labels).total,
        agreement=round(float((prediction.labels == labels).double().mean()), 5),
    )


def _measure(
    task: Task, fast: nn.Module, rows: Sequence[_Candidate], dense: _Dense, report: Report
) -> tuple[list[DenseRow], dict[str, Timing]]:
    """Prepare and check the runtimes, and time them in turns with the rows; return the dense rows, too."""
    with tempfile.TemporaryDirectory() as folder:
        runtimes = _runtimes(task, fast, Path(folder), report)
        errors = {choice: _check(choice, runtimes[choice], task, dense) for choice in runtimes}
        report(f"{len(runtimes) + len(rows)} runs in turns, {task.repeat} rounds")
        times = _alternate(task, runtimes, rows)
    statics = [
        DenseRow(
            *choice,
            settings=runtime.settings,
            ms=round(times[_key(choice)].median, 2),
            p95=round(times[_key(choice)].p95, 2),
            error=float(f"{errors[choice][0]:.2g}"),
            agreement=round(errors[choice][1], 5),
        )
        for choice, runtime in runtimes.items()
    ]
    return statics, times


def _key(choice: Choice) -> str:
    return OWN if choice.runtime == OWN else " ".join(choice)


def _runtimes(task: Task, fast: nn.Module, folder: Path, report: Report) -> dict[Choice, Runtime]:
    """Prepare the runtimes, and our own dense network last."""
    network, image = fold_norms(task.model.network), task.image.contiguous()
    case = Case(network, image, torch.get_num_threads(), folder, task.calibration)
    runtimes = {}
    for choice in task.runtimes:
        if choice.runtime != OWN:
            report(f"the runtime '{choice.runtime}' in {choice.precision}")
            runtimes[choice] = prepare(choice, case)
    return runtimes | {Choice(OWN, PRECISION): own_runtime(fast)}


@torch.inference_mode()
def _check(choice: Choice, runtime: Runtime, task: Task, dense: _Dense) -> tuple[float, float]:
    """Return how far logits are from those of eager PyTorch, and the share of the pixels with its label.

    Raises:
        ValueError: Too far in f32, no numbers, or another shape.
    """
    found = runtime.run(runtime.lay(task.image))
    error = difference(found, dense.logits) if found.shape == dense.logits.shape else float("nan")
    if not error <= (TOLERANCE if choice.precision == "f32" else float("inf")):
        raise ValueError(
            f"the logits of '{choice.runtime}' in {choice.precision} differ from eager PyTorch's by "
            f"{error:.2g} of the largest, at most {TOLERANCE:g} is allowed in f32; leave it out of --runtimes"
        )
    labels = classify(found.contiguous(), task.size)
    return error, float((labels == dense.labels).double().mean())


def _alternate(
    task: Task, runtimes: Mapping[Choice, Runtime], rows: Sequence[_Candidate]
) -> dict[str, Timing]:
    """Time runtimes, by name, and rows, by number, turn by turn up to the labels."""
    runs: dict[str, Callable[[], Tensor]] = {
        _key(choice): partial(_labels, runtime.run, runtime.lay(task.image), task.size)
        for choice, runtime in runtimes.items()
    }
    image = task.image.contiguous(memory_format=torch.channels_last)
    for k, row in enumerate(rows):
        runs[str(k)] = partial(_predict, row.method, image)
    return alternate(runs, task.repeat)


def _labels(run: Callable[[Tensor], Tensor], image: Tensor, size: tuple[int, int]) -> Tensor:
    return classify(run(image), size)


def _predict(method: AdaptiveSegmenter, image: Tensor) -> Tensor:
    return method(image).labels


def _fastest(rows: Sequence[DenseRow], precision: str | None) -> Fastest:
    """Find the fastest runtime of a precision, or of all; never this package's own."""
    found = [row for row in rows if row.runtime != OWN and precision in (None, row.precision)]
    best = min(found, key=lambda row: row.ms)
    return Fastest(best.runtime, best.precision, best.ms)


def _row(
    task: Task,
    row: _Candidate,
    time: Timing,
    dense_ms: tuple[float, float],
    peaks: tuple[float | None, float | None],
) -> BenchRow:
    """Compare a row with the fastest runtime and with our own dense network [ms]."""
    (best, own), decides = dense_ms, decision_ms(row.method, task.image)
    config = row.config
    speedup = best / time.median
    return BenchRow(
        method=task.method,
        policy=str(config.settings.get("policy", "")),
        budget=config.budget,
        precision=PRECISION,
        max_level=0 if config.is_dense else config.whole("max_level", config.whole("coarse_level")),
        tile=config.whole("tile"),
        coarse_level=config.whole("coarse_level"),
        work=round(row.work, 4),
        macs=row.macs,
        agreement=row.agreement,
        ms=round(time.median, 2),
        p95=round(time.p95, 2),
        speedup=round(speedup, 4),
        eta=round(speedup * row.work, 4),
        own_speedup=round(own / time.median, 4),
        decide_ms=None if decides is None else round(decides, 2),
        peak_mb=peaks[0],
        dense_peak_mb=peaks[1],
    )
