"""Rows of every precision beside the fastest runtime of their own, as programs or as modules."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from bench_tasks import SIZE, TORCH, model, needs_kernels, task
from foveal.benchmark import bench as module
from foveal.benchmark import decision
from foveal.benchmark.bench import bench
from foveal.benchmark.results import Fastest
from foveal.benchmark.runtimes import RUNTIMES, Backend, Choice, Runtime
from foveal.benchmark.runtimes.case import Variant
from foveal.benchmark.task import task_scales
from foveal.calibration import engine
from foveal.calibration.engine import find_engine
from foveal.data.synthetic import street
from foveal.methods import CoarseToFineConfig, SegBlocksConfig
from foveal.program import NotCompiled
from samples import error_of, nano


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no network have a program."""

    def cannot(network: object, multiple: int) -> None:
        raise NotCompiled("operation 'flip' (x) has no step")

    monkeypatch.setattr(engine, "compile_fused", cannot)


@dataclass(frozen=True)
class Fixed:
    """A time that nobody took [ms]."""

    median: float

    @property
    def p95(self) -> float:
        return self.median


MS = {"torch f32": 8.0, "other f32": 6.0, "other bf16": 4.0, "foveal f32": 1.0, "foveal bf16": 9.0}


@pytest.fixture
def fixed_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give runtimes the times of `MS`, and everything else 3 ms; torch comes as "other", too."""

    def alternate(runs: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        return {name: Fixed(MS.get(name, 3.0)) for name in runs}

    monkeypatch.setitem(RUNTIMES, "other", RUNTIMES["torch"])
    monkeypatch.setattr(module, "alternate", alternate)
    monkeypatch.setattr(decision, "alternate", alternate)


OTHERS = [TORCH, Choice("other", "f32"), Choice("other", "bf16")]


@pytest.mark.usefixtures("fixed_times", "uncompiled")
def test_our_own_dense_network_is_never_the_one_to_beat() -> None:
    found = bench(task((0.6, 1), runtimes=OTHERS))
    assert found.best_static == Fastest("other", "f32", 6.0)
    assert found.best_static_any == Fastest("other", "bf16", 4.0)
    row = found.adaptive[0]
    assert (row.speedup, row.own_speedup, row.decide_ms) == (2.0, 0.3333, 6.0)
    assert row.eta == pytest.approx(2 * row.work, abs=1e-4)


@pytest.mark.usefixtures("fixed_times")
@needs_kernels
def test_rows_are_compared_with_the_fastest_runtime_of_their_own_precision() -> None:
    found = bench(task((0.6, 1), runtimes=OTHERS, precisions=("f32", "bf16")))
    assert found.best_static == {
        "f32": Fastest("other", "f32", 6.0),
        "bf16": Fastest("other", "bf16", 4.0),
    }
    assert found.rivals == list(found.best_static.values())
    exact, rounded = found.adaptive
    assert [(row.precision, row.engine, row.ms) for row in found.adaptive] == [
        ("f32", "program", 3.0),
        ("bf16", "program", 3.0),
    ]
    assert (exact.speedup, exact.own_speedup) == (2.0, 0.3333)
    assert (rounded.speedup, rounded.own_speedup) == (1.3333, 3.0)
    for row in found.adaptive:
        assert row.eta == pytest.approx(row.speedup * row.work, abs=1e-4)
    own = [(row.precision, row.settings) for row in found.dense if row.runtime == "foveal"]
    assert own == [("f32", "program f32"), ("bf16", "program bf16")]


@pytest.fixture
def quantising(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a runtime "eight" say that it computes in int8."""
    backend = Backend("eight", {"int8": Variant(lambda case: Runtime(case.network.forward))})
    monkeypatch.setitem(RUNTIMES, "eight", backend)


@pytest.mark.usefixtures("quantising")
@needs_kernels
def test_random_weights_run_in_int8_with_ranges_from_any_images() -> None:
    calibration = [street(seed, SIZE)[0][None] for seed in range(2)]
    given = task(
        (1.0, 0),
        (0.6, 1),
        model=model(nano()),
        runtimes=[Choice("eight", "int8")],
        precisions=("int8",),
        calibration=calibration,
        labels_count=False,
    )
    found = bench(given)
    assert isinstance(found.best_static, Fastest) and found.best_static.precision == "int8"
    assert [(row.precision, row.engine) for row in found.adaptive] == [("int8", "program")] * 2
    assert found.dense[-1].settings == "program int8"
    assert 1e-3 < found.dense[-1].error < 0.5
    assert found.adaptive[0].agreement == found.dense[-1].agreement
    assert task_scales(given, find_engine(given.model)).kept == ()
    assert bench(
        replace(given, scales=task_scales(given, find_engine(given.model)), calibration=calibration[:1])
    ).adaptive


@pytest.mark.usefixtures("quantising", "uncompiled")
def test_without_a_program_modules_run_in_f32_and_nothing_in_another_precision() -> None:
    choices = [TORCH, Choice("torch", "bf16"), Choice("eight", "int8")]
    calibration = [street(1, SIZE)[0][None]]
    given = task((0.6, 1), runtimes=choices, precisions=("f32", "bf16", "int8"), calibration=calibration)
    found = bench(given)
    assert [(row.precision, row.engine) for row in found.adaptive] == [("f32", "modules")]
    assert found.best_static == next(row for row in found.rivals if row.precision == "f32")
    assert found.dense[-1].settings == "modules"
    assert len(found.left_out) == 3
    for precision, sentence in zip(("f32", "bf16", "int8"), found.left_out, strict=True):
        assert "operation 'flip' (x) has no step" in sentence
        assert precision == "f32" or f"small has no program in {precision}" in sentence
    message = error_of(lambda: bench(replace(given, precisions=("bf16",))))
    assert message == "small has no program in bf16: operation 'flip' (x) has no step"


@needs_kernels
def test_rows_need_a_runtime_of_their_precision() -> None:
    rounded = [Choice("torch", "bf16"), Choice("foveal", "f32")]
    message = error_of(lambda: bench(task((0.6, 1), runtimes=rounded)))
    assert message.startswith("adaptive rows in f32 are left out, for there is no static runtime in f32")
    found = bench(task((0.6, 1), runtimes=rounded, precisions=("f32", "bf16")))
    assert found.left_out == (message,)
    assert [row.precision for row in found.adaptive] == ["bf16"]
    assert found.best_static == found.best_static_any


@needs_kernels
def test_a_method_without_a_compiled_form_is_left_out_of_lower_precisions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(CoarseToFineConfig, "program_run", lambda self: None)
    choices = [TORCH, Choice("torch", "bf16")]
    config = CoarseToFineConfig(0.8, "entropy", 32, 1)
    given = task(method="coarse_to_fine", configs=[config], runtimes=choices, precisions=("f32", "bf16"))
    found = bench(given)
    assert [(row.precision, row.engine) for row in found.adaptive] == [("f32", "modules")]
    assert len(found.left_out) == 1
    assert "in bf16: method coarse_to_fine" in found.left_out[0]
    assert "has no compiled form" in found.left_out[0]


@needs_kernels
def test_a_plan_that_is_decided_before_the_program_has_its_decision_timed() -> None:
    config = SegBlocksConfig(0.6, "random", 32, 1)
    row = bench(task(configs=[config])).adaptive[0]
    assert (row.engine, row.precision) == ("program", "f32")
    assert row.decide_ms is not None and 0 <= row.decide_ms < row.ms + 50


def test_lower_precision_is_reported_with_its_agreement() -> None:
    found = bench(task((0.6, 1), runtimes=[TORCH, Choice("torch", "bf16")]))
    exact, rounded, own = found.dense
    assert (exact.precision, rounded.precision, own.runtime) == ("f32", "bf16", "foveal")
    assert exact.error < 1e-5 < rounded.error < 0.1
    assert exact.agreement == 1 and 0.9 < rounded.agreement <= 1
