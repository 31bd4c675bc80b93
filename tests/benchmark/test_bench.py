from __future__ import annotations

import copy
import json
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from bench_tasks import SIZE, TORCH, configs, model, task
from foveal.adaptive.opening import open_model
from foveal.benchmark.bench import bench
from foveal.benchmark.memory import peak_mb
from foveal.benchmark.runtimes import RUNTIMES, Backend, Case, Choice, Runtime
from foveal.benchmark.runtimes.case import Variant
from foveal.cost import count_macs
from foveal.data.synthetic import street
from foveal.hub.untrained import random_network
from foveal.methods import CoarseToFineConfig, SegBlocksConfig
from foveal.models import MODELS
from foveal.ops import classify
from samples import error_of, nano

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
TIMED = {"ms", "p95", "speedup", "eta", "own_speedup", "decide_ms", "peak_mb", "dense_peak_mb", "wanted"}


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
    model = open_model("swiftnet_nano", untrained=True)
    assert (model.name, len(model.card.classes), model.card.tile) == ("swiftnet_nano", 19, 64)
    message = error_of(lambda: open_model("swiftnet", untrained=True))
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


def test_a_runtime_may_answer_in_the_same_memory_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def sparing(case: Case) -> Runtime:
        with torch.no_grad():
            kept = case.network(case.image).clone()
        return Runtime(lambda image: kept.copy_(case.network(image)))

    monkeypatch.setitem(RUNTIMES, "sparing", Backend("sparing", {"f32": Variant(sparing)}))
    found = bench(task((0.6, 1), runtimes=[TORCH, Choice("sparing", "f32")]))
    assert {row.runtime for row in found.dense} >= {"torch", "sparing"}
