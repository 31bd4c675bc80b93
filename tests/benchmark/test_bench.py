from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foveal.benchmark import bench as module
from foveal.benchmark import runtimes as peers
from foveal.benchmark.bench import Task, bench
from foveal.benchmark.memory import peak_mb
from foveal.benchmark.runtimes import (
    PEERS,
    Case,
    Peer,
    Runtime,
    choose_peers,
    difference,
    fold_norms,
    prepare,
)
from foveal.cost import count_macs
from foveal.data.dataset import default_palette
from foveal.data.synthetic import street
from foveal.hub.card import Card
from foveal.hub.checkpoint import Model
from foveal.hub.untrained import find_model, random_network
from foveal.methods import Request
from foveal.methods.base import classify
from foveal.models import MODELS, create_model
from samples import error_of, headless, nano, shaken

SIZE = (64, 96)
ROW = {"method", "policy", "budget", "coarsest", "tile", "look", "work", "macs", "agreement"}
TIMED = {"ms", "p95", "speedup", "eta", "own_speedup", "decide_ms"}


def requests(*pairs: tuple[float, int]) -> list[Request]:
    return [Request(budget, "entropy", 32, coarsest, 2) for budget, coarsest in pairs]


def model(network: Any) -> Model:
    return Model("small", network, Card("swiftnet_nano", tuple("abcde"), default_palette(5)))


def task(*pairs: tuple[float, int], **changes: Any) -> Task:
    image = street(24, SIZE)[0][None]
    plain = Task(model(shaken(headless())), image, "segblocks", requests(*pairs), ["torch"], repeat=1)
    return replace(plain, **changes)


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    torch.manual_seed(0)
    return bench(task((1.0, 0), (0.6, 1), (0.55, 2), model=model(nano()), repeat=2))


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    torch.manual_seed(0)
    network = fold_norms(shaken(headless()))
    yield Case(network, torch.rand(1, 3, 33, 47), 1, tmp_path_factory.mktemp("onnx"))


def test_the_result_says_what_was_measured_on_what(result: dict[str, Any]) -> None:
    assert set(result) == {
        *("machine", "threads", "torch", "versions", "model", "weights", "size", "batch", "repeat"),
        *("dense_macs", "dense", "best_static", "adaptive", "left_out"),
    }
    assert (result["model"], result["size"], result["batch"], result["repeat"]) == ("small", [64, 96], 1, 2)
    assert (result["threads"], result["torch"]) == (torch.get_num_threads(), torch.__version__)
    assert result["machine"]
    assert result["weights"] == "trained"


def test_every_row_has_its_keys_and_its_request(result: dict[str, Any]) -> None:
    assert all(set(row) == ROW | TIMED for row in result["adaptive"])
    assert [(row["budget"], row["coarsest"]) for row in result["adaptive"]] == [(1.0, 0), (0.6, 1), (0.55, 2)]
    assert all(set(row) == {"runtime", "settings", "ms", "p95", "error"} for row in result["dense"])
    assert [row["runtime"] for row in result["dense"]] == ["torch", "foveal"]


def test_eta_is_speed_up_times_work_over_the_fastest_peer(result: dict[str, Any]) -> None:
    best = result["best_static"]
    assert best["ms"] == min(row["ms"] for row in result["dense"] if row["runtime"] != "foveal")
    for row in result["adaptive"]:
        assert row["speedup"] == pytest.approx(best["ms"] / row["ms"], rel=0.02)
        assert row["eta"] == pytest.approx(row["speedup"] * row["work"], rel=1e-3)
        assert row["p95"] >= row["ms"] > 0
        assert row["decide_ms"] >= 0


def test_our_own_dense_network_is_never_the_one_to_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fixed:
        def __init__(self, ms: float) -> None:
            self.median = self.p95 = ms
            self.runs = (ms, ms)

    def alternate(runs: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        return {name: Fixed({"torch": 8.0, "other": 6.0, "foveal": 1.0}.get(name, 3.0)) for name in runs}

    monkeypatch.setitem(PEERS, "other", PEERS["torch"])
    monkeypatch.setattr(module, "alternate", alternate)
    found = bench(task((0.6, 1), peers=["torch", "other"]))
    assert found["best_static"] == {"runtime": "other", "ms": 6.0}
    row = found["adaptive"][0]
    assert (row["speedup"], row["own_speedup"], row["decide_ms"]) == (2.0, 0.3333, 6.0)
    assert row["eta"] == pytest.approx(2 * row["work"], abs=1e-4)


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
    assert [row["budget"] for row in found["adaptive"]] == [0.6]
    assert len(found["left_out"]) == 1
    assert found["left_out"][0].startswith("budget 0.1 with coarsest 1: budget is ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"requests": requests((0.05, 1), (0.1, 1))}, "the cheapest plan"),
        ({"method": "segblock"}, "no method named 'segblock'; available: "),
        ({"requests": [Request(policy="oracle")]}, "the oracle needs labels"),
        ({"requests": [Request(tile=20)], "model": model(nano())}, "give a multiple of 32"),
        ({"image": torch.full((1, 3, *SIZE), torch.nan)}, "NaN"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes: dict[str, Any], message: str) -> None:
    assert message in error_of(lambda: bench(task((0.6, 1), **changes)))


def test_a_method_that_decides_more_than_once_has_no_single_decision() -> None:
    request = Request(0.8, "entropy", 32, 1, 1)
    row = bench(task(method="coarse_to_fine", requests=[request]))["adaptive"][0]
    assert row["decide_ms"] is None
    assert row["eta"] > 0


def test_batches_are_one_call() -> None:
    image = torch.stack([street(seed, SIZE)[0] for seed in range(2)])
    found, single = bench(task((0.6, 1), image=image)), bench(task((0.6, 1), image=image[:1]))
    assert found["batch"] == 2
    assert found["dense_macs"] == 2 * single["dense_macs"]


def test_the_model_is_left_as_it_was() -> None:
    given = task((0.6, 1))
    before = copy.deepcopy(given.model.network.state_dict())
    bench(given)
    assert all(torch.equal(value, before[key]) for key, value in given.model.network.state_dict().items())
    assert not [m for m in given.model.network.modules() if "forward" in vars(m)]


@pytest.mark.parametrize("factor", [1.05, float("nan")])
def test_a_peer_with_other_logits_is_refused(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(case: Case) -> Runtime:
        return Runtime(lambda image: factor * case.network(image))

    monkeypatch.setitem(PEERS, "wrong", Peer(wrong, "wrong"))
    message = error_of(lambda: bench(task((0.6, 1), peers=["torch", "wrong"])))
    assert "the logits of 'wrong' differ from eager PyTorch's by" in message


def test_a_peer_that_fails_is_named(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(case: Case) -> Runtime:
        raise RuntimeError("no such\noperation")

    monkeypatch.setitem(PEERS, "bad", Peer(fail, "bad"))
    message = error_of(lambda: prepare("bad", case))
    assert message == "the peer 'bad' cannot run this network (RuntimeError: no such operation); leave it out"


def test_peers_are_chosen_by_name_or_all_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_peers(["torch", "torch"]) == (["torch"], [])
    assert "did you mean 'openvino'? available: torch, compile" in error_of(lambda: choose_peers(["openvin"]))
    assert "give some of torch" in error_of(lambda: choose_peers([]))
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    monkeypatch.setattr(peers, "_compiler", lambda: None)
    names, sentences = choose_peers()
    assert names == ["torch"]
    assert [text.split("'")[1] for text in sentences] == ["compile", "onnxruntime", "openvino"]
    assert "pip install 'foveal[bench]'" in error_of(lambda: choose_peers(["openvino"]))
    assert "C++ compiler" in error_of(lambda: choose_peers(["compile"]))


@pytest.mark.parametrize("name", ["swiftnet_nano", "swiftnet_rn18", "swiftnet_mobilenetv2"])
def test_folding_keeps_the_logits(name: str) -> None:
    network = shaken(create_model(name, 5)).eval()
    folded, image = fold_norms(network), torch.rand(1, 3, 65, 97)
    with torch.no_grad():
        assert difference(folded(image), network(image)) < 1e-5
    assert 0 < norms(folded) < norms(network)


def test_folding_leaves_what_is_used_twice_or_follows_no_convolution() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.once, self.both = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)
            self.first, self.second, self.last = (nn.BatchNorm2d(4) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(self.once(x))
            return self.last(self.second(self.both(x)) + self.both(x).relu())

    network, image = shaken(Twice()).eval(), torch.rand(1, 3, 8, 8)
    folded = fold_norms(network)
    assert [type(m) for m in (folded.first, folded.second, folded.last)] == [
        *(nn.Identity, nn.BatchNorm2d, nn.BatchNorm2d)
    ]
    with torch.no_grad():
        assert difference(folded(image), network(image)) < 1e-5


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("name", ["torch", "onnxruntime", "openvino"])
def test_peers_give_the_logits_of_the_network(name: str, case: Case) -> None:
    assert agrees(name, case)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(PEERS))
def test_peers_run_a_whole_network(name: str, tmp_path: Path) -> None:
    assert agrees(name, Case(fold_norms(nano()), torch.rand(2, 3, 65, 97), 1, tmp_path))


def agrees(name: str, case: Case) -> bool:
    for package in PEERS[name].packages:
        pytest.importorskip(package)
    runtime = prepare(name, case)
    with torch.inference_mode():
        for image in (case.image, torch.rand_like(case.image)):
            expected = case.network(image)
            for _ in range(2):
                assert difference(runtime.run(runtime.lay(image)), expected) < 1e-4
    return bool(runtime.settings)


@pytest.mark.slow
def test_a_compiled_network_is_never_compiled_again(case: Case) -> None:
    runtime = prepare("compile", case)
    with pytest.raises(RuntimeError, match="recompile"):
        runtime.run(runtime.lay(case.image[:, :, :32]))


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
    for row in bench(task((1.0, 0), (0.6, 1), model=model(nano()), memory=True))["adaptive"]:
        assert 0 < row["peak_mb"] < 200
        assert 0 < row["dense_peak_mb"] < 200
