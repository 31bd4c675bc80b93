from __future__ import annotations

import copy
import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from foveal.benchmark import bench as module
from foveal.benchmark import decision
from foveal.benchmark.bench import bench
from foveal.benchmark.memory import peak_mb
from foveal.benchmark.results import Fastest
from foveal.benchmark.runtimes import RUNTIMES, Backend, Case, Choice, Runtime
from foveal.benchmark.runtimes.case import Variant
from foveal.benchmark.task import Task, task_scales
from foveal.calibration import engine
from foveal.cost import count_macs
from foveal.data.dataset import default_palette
from foveal.data.synthetic import street
from foveal.hub.card import Card
from foveal.hub.checkpoint import Model
from foveal.hub.untrained import find_model, random_network
from foveal.kernels import build
from foveal.methods import CoarseToFineConfig, MethodConfig, SegBlocksConfig
from foveal.models import MODELS
from foveal.ops import classify
from foveal.program import NotCompiled
from samples import error_of, headless, nano, shaken

needs_kernels = pytest.mark.skipif(not build.available(), reason="no compiler")
SIZE = (64, 96)
TORCH = Choice("torch", "f32")
ROW = {
    "method",
    "policy",
    "budget",
    "precision",
    "engine",
    "max_level",
    "tile",
    "coarse_level",
    "work",
    "macs",
    "agreement",
}
TIMED = {"ms", "p95", "speedup", "eta", "own_speedup", "decide_ms", "peak_mb", "dense_peak_mb"}


def configs(*pairs: tuple[float, int]) -> list[MethodConfig]:
    return [SegBlocksConfig(budget, "entropy", 32, level, 2) for budget, level in pairs]


def model(network: Any) -> Model:
    return Model("small", network, Card("swiftnet_nano", tuple("abcde"), default_palette(5)))


def task(*pairs: tuple[float, int], **changes: Any) -> Task:
    image = street(24, SIZE)[0][None]
    plain = Task(model(shaken(headless())), image, "segblocks", configs(*pairs), [TORCH], repeat=1)
    return replace(plain, **changes)


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no network have a program."""

    def cannot(network: object) -> None:
        raise NotCompiled("operation 'flip' (x) has no step")

    monkeypatch.setattr(engine, "compile_fused", cannot)


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    torch.manual_seed(0)
    found = bench(task((1.0, 0), (0.6, 1), (0.55, 2), model=model(nano()), repeat=2))
    return json.loads(json.dumps(asdict(found)))


def test_the_result_says_what_was_measured_on_what(result: dict[str, Any]) -> None:
    assert set(result) == {
        *("machine", "instruction_sets", "cores", "threads", "torch", "versions", "commit", "command"),
        *("model", "weights", "size", "batch", "repeat", "dense_macs"),
        *("dense", "best_static", "best_static_any", "adaptive", "left_out"),
    }
    assert (result["model"], result["size"], result["batch"], result["repeat"]) == ("small", [64, 96], 1, 2)
    assert (result["threads"], result["torch"]) == (torch.get_num_threads(), torch.__version__)
    assert result["machine"]
    assert result["weights"] == "trained"


def test_every_row_has_its_keys_and_its_request(result: dict[str, Any]) -> None:
    assert all(set(row) == ROW | TIMED for row in result["adaptive"])
    rows = [(row["budget"], row["max_level"]) for row in result["adaptive"]]
    assert rows == [(1.0, 0), (0.6, 1), (0.55, 2)]
    keys = {"runtime", "precision", "settings", "ms", "p95", "error", "agreement"}
    assert all(set(row) == keys and row["precision"] == "f32" for row in result["dense"])
    assert [row["runtime"] for row in result["dense"]] == ["torch", "foveal"]


def test_eta_is_speed_up_times_work_over_the_fastest_peer(result: dict[str, Any]) -> None:
    best = result["best_static"]
    assert best["ms"] == min(row["ms"] for row in result["dense"] if row["runtime"] != "foveal")
    for row in result["adaptive"]:
        assert row["speedup"] == pytest.approx(best["ms"] / row["ms"], rel=0.02)
        assert row["eta"] == pytest.approx(row["speedup"] * row["work"], rel=1e-3)
        assert row["p95"] >= row["ms"] > 0
        assert row["decide_ms"] >= 0


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
    assert task_scales(given).kept == ()
    assert bench(replace(given, scales=task_scales(given), calibration=calibration[:1])).adaptive


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


def test_answers_are_compared_with_the_dense_network(result: dict[str, Any]) -> None:
    assert all(row["error"] < 1e-4 for row in result["dense"])
    expected = count_macs(lambda: classify(nano()(torch.rand(1, 3, *SIZE)), SIZE)).total
    assert result["dense_macs"] == expected
    everything, *less = result["adaptive"]
    assert (everything["work"], everything["agreement"]) == (1, 1)
    assert everything["macs"] >= result["dense_macs"]
    assert all(row["macs"] < result["dense_macs"] and row["work"] < 1 for row in less)


def test_rows_that_the_budget_does_not_pay_for_are_left_out() -> None:
    found = bench(task((0.1, 1), (0.6, 1)))
    assert [row.budget for row in found.adaptive] == [0.6]
    assert len(found.left_out) == 1
    assert found.left_out[0].startswith(
        "budget 0.1, policy entropy, tile 32, max_level 1, coarse_level 2: budget is "
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"configs": configs((0.05, 1), (0.1, 1))}, "the cheapest plan"),
        ({"method": "segblock"}, "no method named 'segblock'; did you mean 'segblocks'?"),
        ({"configs": [SegBlocksConfig(policy="oracle")]}, "the oracle needs labels"),
        ({"configs": [SegBlocksConfig(tile=20)], "model": model(nano())}, "give a multiple of 32"),
        ({"image": torch.full((1, 3, *SIZE), torch.nan)}, "NaN"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes: dict[str, Any], message: str) -> None:
    assert message in error_of(lambda: bench(task((0.6, 1), **changes)))


def test_a_method_that_decides_more_than_once_has_no_single_decision() -> None:
    config = CoarseToFineConfig(0.8, "entropy", 32, 1)
    row = bench(task(method="coarse_to_fine", configs=[config])).adaptive[0]
    assert row.decide_ms is None
    assert row.eta > 0


def test_batches_are_one_call() -> None:
    image = torch.stack([street(seed, SIZE)[0] for seed in range(2)])
    found, single = bench(task((0.6, 1), image=image)), bench(task((0.6, 1), image=image[:1]))
    assert found.batch == 2
    assert found.dense_macs == 2 * single.dense_macs


def test_the_model_is_left_as_it_was() -> None:
    given = task((0.6, 1))
    before = copy.deepcopy(given.model.network.state_dict())
    bench(given)
    assert all(torch.equal(value, before[key]) for key, value in given.model.network.state_dict().items())
    assert not [m for m in given.model.network.modules() if "forward" in vars(m)]


def test_architectures_get_settled_norms_and_always_the_same_weights() -> None:
    state = torch.get_rng_state()
    network = random_network("swiftnet_nano", (64, 128))
    assert torch.equal(torch.get_rng_state(), state)
    again = random_network("swiftnet_nano", (64, 128)).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in network.state_dict().items())
    assert {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)} <= {0.1, 0.05, 0.005}
    with torch.no_grad():
        logits = network(street(1, (64, 128))[0][None])
    assert 0.05 < float(logits.std()) < 20
    assert not network.training


def test_models_and_architectures_are_found_by_name() -> None:
    model = find_model("swiftnet_nano")
    assert (model.name, len(model.card.classes), model.card.tile) == ("swiftnet_nano", 19, 64)
    message = error_of(lambda: find_model("swiftnet"))
    assert message.startswith("no model 'swiftnet'; ")
    assert message.endswith(", ".join(MODELS))


@pytest.mark.slow
def test_peak_memory_is_that_of_one_run() -> None:
    assert 100 <= peak_mb(partial, torch.ones, 25_000_000) < 140
    assert "memory cannot be measured: " in error_of(lambda: peak_mb(int, "x"))


@pytest.mark.slow
def test_peak_memory_is_measured_beside_the_dense_network() -> None:
    choices = [TORCH, Choice("torch", "bf16")]
    given = task((1.0, 0), (0.6, 1), model=model(nano()), memory=True, runtimes=choices)
    for row in bench(replace(given, precisions=("f32", "bf16"))).adaptive:
        assert row.peak_mb is not None and 0 < row.peak_mb < 200
        assert row.dense_peak_mb is not None and 0 < row.dense_peak_mb < 200


@pytest.mark.parametrize("factor", [1.05, float("nan")])
def test_a_runtime_with_other_logits_is_refused(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(case: Case) -> Runtime:
        return Runtime(lambda image: factor * case.network(image))

    monkeypatch.setitem(RUNTIMES, "wrong", Backend("wrong", {"f32": Variant(wrong)}))
    message = error_of(lambda: bench(task((0.6, 1), runtimes=[TORCH, Choice("wrong", "f32")])))
    assert "the logits of 'wrong' in f32 differ from eager PyTorch's by" in message


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
