"""Speed: an adaptive method timed in turns with the dense network in the fastest runtimes available.

Everything is timed from an image in memory to labels at its size, in one process, turn by turn. The dense
network to beat is the fastest static runtime of the same precision; that of any precision is named beside it.
`eta`, the speed-up times the work, says how much of the work that is saved becomes time that is saved: 1 is
all of it. Our own dense network is a row of every precision, never the one to beat; where it is faster than
every runtime `eta` may exceed 1, and `own_speedup` is what adapting alone gives.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from foveal.benchmark.contenders import AdaptiveContender, Labeller, adaptive_labeller, static_labeller
from foveal.benchmark.decision import decision_ms
from foveal.benchmark.engines import find_engines
from foveal.benchmark.masked import Masked
from foveal.benchmark.peaks import Peaks, measure_peaks
from foveal.benchmark.results import BenchResult, BenchRow, DenseRow, Fastest
from foveal.benchmark.runtimes import Case, Choice, Precision, difference, fold_norms, prepare
from foveal.benchmark.runtimes.own import OWN
from foveal.benchmark.task import Report, Task, describe_task, task_scales
from foveal.calibration.engine import Engine
from foveal.cost import Timing, alternate, count_macs
from foveal.methods import AdaptiveSegmenter, CompiledMethod
from foveal.methods.base import check_image
from foveal.methods.padding import unpadded
from foveal.methods.scaling import unscaled
from foveal.ops import classify, tuning
from foveal.storage.labels import VOID

TOLERANCE = 1e-2
"""Largest difference of a runtime's logits in f32 from eager PyTorch's, as a share of the largest logit."""


@dataclass(frozen=True)
class _Reference:
    """What eager PyTorch says in f32: the measure of every other run; its labels count if it was trained."""

    logits: Tensor
    labels: Tensor
    macs: int
    trained: bool


@dataclass(frozen=True)
class _Static:
    """The dense network in a runtime, ours among them, and how far it is from the reference."""

    choice: Choice
    labeller: Labeller
    error: float
    agreement: float | None


@dataclass(frozen=True)
class _Adaptive:
    """A method that is ready, and what is known before anything is timed."""

    contender: AdaptiveContender
    method: AdaptiveSegmenter
    run: AdaptiveSegmenter | Masked
    work: float
    macs: int
    agreement: float | None


@torch.no_grad()
def bench(task: Task, report: Report = lambda text: None) -> BenchResult:
    """Measure a task.

    Args:
        task: What is measured.
        report: Called with what is done next.

    Raises:
        ValueError: Something that is asked for does not exist or fit, no row can be run, no precision has a
            runtime to compare with, or a runtime cannot run the network or gives other logits than eager
            PyTorch.
    """
    check_image(task.image, task.model.network)
    task = replace(task, model=replace(task.model, network=copy.deepcopy(task.model.network).eval()))
    precisions, left_out = _comparable(task)
    report("the dense network, counted")
    reference = _run_dense(task)
    engines, unable = find_engines(task.model, precisions, partial(task_scales, task))
    rows, unpaid = _first_runs(task, engines, [*left_out, *unable], reference, report)
    peaks = None
    if task.memory:
        report("memory, in processes of their own")
        peaks = measure_peaks(task, [row.contender for row in rows])
    statics, times = _measure(task, engines, rows, reference, report)
    best = {p: _fastest(statics, p) for p in dict.fromkeys(row.contender.precision for row in rows)}
    report("the decisions")
    return BenchResult(
        **vars(describe_task(task, reference.macs)),
        dense=tuple(statics),
        best_static=next(iter(best.values())) if len(best) == 1 else best,
        best_static_any=_fastest(statics, None),
        adaptive=tuple(_row(task, row, k, times, (best, peaks)) for k, row in enumerate(rows)),
        left_out=(*left_out, *unable, *unpaid),
    )


def _comparable(task: Task) -> tuple[list[Precision], list[str]]:
    """List the precisions that a static runtime computes in, and a sentence for every other.

    Raises:
        ValueError: There is none.
    """
    rivals = {choice.precision for choice in task.runtimes if choice.runtime != OWN}
    left_out = [
        f"adaptive rows in {precision} are left out, for there is no static runtime in {precision} to "
        "compare them with; give one (--runtimes, or pip install 'foveal[bench]')"
        for precision in task.precisions
        if precision not in rivals
    ]
    precisions = [precision for precision in task.precisions if precision in rivals]
    if not precisions:
        raise ValueError(left_out[0])
    return precisions, left_out


@torch.no_grad()  # not inference mode, under which less is counted
def _run_dense(task: Task) -> _Reference:
    """Run the network as it is, and count."""
    found: list[tuple[Tensor, Tensor]] = []

    def run() -> None:
        logits = task.model.network(task.image)
        found.append((logits, classify(logits, task.size)))

    macs = count_macs(run).total
    return _Reference(*found[0], macs, task.trained)


def _first_runs(
    task: Task, engines: Sequence[Engine], unable: Sequence[str], reference: _Reference, report: Report
) -> tuple[list[_Adaptive], list[str]]:
    """Run every row once; say which are left out because the budget does not pay for any plan.

    Raises:
        ValueError: None can be run.
    """
    rows, left_out = [], []
    problem = ValueError("; ".join(unable))
    for engine in engines:
        for config in task.configs:
            where = f" in {engine.precision}" if len(task.precisions) > 1 else ""
            whole = AdaptiveContender(task.method, engine, config)
            for contender in whole.and_masked(task.wanted, task.image):
                title = f"budget {config.budget:g}, {config.title}{where}{', masked' * bool(contender.mask)}"
                report(title)
                try:
                    rows.append(_first_run(task, contender, reference))
                except ValueError as error:
                    problem = error
                    left_out.append(f"{title}: {error}")
    if not rows:
        raise problem
    return rows, left_out


@torch.no_grad()  # not inference mode, under which less is counted
def _first_run(task: Task, contender: AdaptiveContender, reference: _Reference) -> _Adaptive:
    """Make a method, choose its kernels, compare with the dense labels, and count."""
    image, method = task.image.contiguous(memory_format=torch.channels_last), contender.make()
    run = method if contender.mask is None else Masked(method, contender.mask)
    with tuning():
        work = float(run(image).trace.work.mean())
    labels: list[Tensor] = []
    macs = count_macs(lambda: labels.append(run.labels(image))).total
    return _Adaptive(contender, method, run, work, macs, _agreement(labels[0], reference))


def _measure(
    task: Task, engines: Sequence[Engine], rows: Sequence[_Adaptive], reference: _Reference, report: Report
) -> tuple[list[DenseRow], dict[str, Timing]]:
    """Prepare the dense network everywhere, and time it in turns with the rows; return its rows, too."""
    with tempfile.TemporaryDirectory() as folder:
        statics = _statics(task, Path(folder), reference, report)
        statics += [_own(task, engine, reference) for engine in engines]
        report(f"{len(statics) + len(rows)} runs in turns, {task.repeat} rounds")
        ready = {_key(static.choice): static.labeller for static in statics}
        ready |= {str(k): adaptive_labeller(row.run, "") for k, row in enumerate(rows)}
        times = _alternate(task, ready)
    return [_dense_row(static, times[_key(static.choice)]) for static in statics], times


def _key(choice: Choice) -> str:
    return " ".join(choice)


def _statics(task: Task, folder: Path, reference: _Reference, report: Report) -> list[_Static]:
    """Prepare and check the runtimes.

    Raises:
        ValueError: One cannot run the network, or gives other logits.
    """
    network, image = fold_norms(task.model.network), task.image.contiguous()
    case = Case(network, image, torch.get_num_threads(), folder, task.calibration)
    found = []
    for choice in task.runtimes:
        if choice.runtime != OWN:
            report(f"the runtime '{choice.runtime}' in {choice.precision}")
            runtime = prepare(choice, case)
            labeller = static_labeller(runtime, image, task.size)
            with torch.inference_mode():  # valid until the next call
                logits = runtime.run(runtime.lay(task.image))
            found.append(_check(choice, labeller, logits, task, reference))
    return found


@torch.inference_mode()
def _own(task: Task, engine: Engine, reference: _Reference) -> _Static:
    """Prepare our own dense network."""
    method = engine.dense()
    labeller = adaptive_labeller(method, engine.name)
    with tuning():
        logits = method(labeller.lay(task.image)).logits
    return _check(Choice(OWN, engine.precision), labeller, logits, task, reference)


def _check(choice: Choice, labeller: Labeller, logits: Tensor, task: Task, reference: _Reference) -> _Static:
    """Measure how far logits are from those of eager PyTorch, and the share of the pixels with its label.

    Raises:
        ValueError: Too far in f32, no numbers, or another shape.
    """
    same = logits.shape == reference.logits.shape
    error = difference(logits, reference.logits) if same else float("nan")
    if not error <= (TOLERANCE if choice.precision == "f32" else float("inf")):
        raise ValueError(
            f"the logits of '{choice.runtime}' in {choice.precision} differ from eager PyTorch's by "
            f"{error:.2g} of the largest, at most {TOLERANCE:g} is allowed in f32; leave it out of --runtimes"
        )
    labels = classify(logits.contiguous(), task.size)
    return _Static(choice, labeller, error, _agreement(labels, reference))


def _agreement(labels: Tensor, reference: _Reference) -> float | None:
    if not reference.trained:
        return None
    return round(float((labels == reference.labels)[labels != VOID].double().mean()), 5)


def _alternate(task: Task, ready: Mapping[str, Labeller]) -> dict[str, Timing]:
    """Time all turn by turn up to the labels; those of one layout share its image."""
    images = {labeller.layout: labeller.lay(task.image) for labeller in ready.values()}
    runs: dict[str, Callable[[], Tensor]] = {
        name: partial(labeller.run, images[labeller.layout]) for name, labeller in ready.items()
    }
    return alternate(runs, task.repeat)


def _dense_row(static: _Static, time: Timing) -> DenseRow:
    return DenseRow(
        *static.choice,
        settings=static.labeller.settings,
        ms=round(time.median, 2),
        p95=round(time.p95, 2),
        error=float(f"{static.error:.2g}"),
        agreement=static.agreement,
    )


def _fastest(rows: Sequence[DenseRow], precision: str | None) -> Fastest:
    """Find the fastest runtime of a precision, or of all; never this package's own."""
    found = [row for row in rows if row.runtime != OWN and precision in (None, row.precision)]
    best = min(found, key=lambda row: row.ms)
    return Fastest(best.runtime, best.precision, best.ms)


def _row(
    task: Task,
    row: _Adaptive,
    number: int,
    times: Mapping[str, Timing],
    beside: tuple[Mapping[Precision, Fastest], Peaks | None],
) -> BenchRow:
    """Compare a row with the fastest runtime and with our own dense network, both of its precision."""
    (best, peaks), config, mask = beside, row.contender.config, row.contender.mask
    precision, time = row.contender.precision, times[str(number)]
    decides = decision_ms(row.method, task.image) if mask is None else None
    speedup = best[precision].ms / time.median
    own = times[_key(Choice(OWN, precision))].median
    return BenchRow(
        method=task.method,
        policy=str(config.settings.get("policy", "")),
        budget=config.budget,
        precision=precision,
        engine="program" if isinstance(unpadded(unscaled(row.method)), CompiledMethod) else "modules",
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
        peak_mb=peaks.methods[number] if peaks else None,
        dense_peak_mb=peaks.dense if peaks else None,
        wanted=None if mask is None else round(float(mask.pixels.double().mean()), 4),
    )
