from __future__ import annotations

import copy
import json
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from commands import parsed, refused, run, small_model
from foveal.benchmark import profile_ops as module
from foveal.benchmark.operation_results import OperationsResult
from foveal.benchmark.profile_ops import geometry, operations
from foveal.benchmark.task import Task
from foveal.cost import count_macs
from foveal.data.dataset import default_palette
from foveal.data.synthetic import street
from foveal.fusion import fuse
from foveal.hub.card import Card
from foveal.hub.checkpoint import Model
from foveal.methods import SegBlocks, SegBlocksConfig
from foveal.ops import Convolution, Prologue
from foveal.ops.convolve import ALGORITHMS
from foveal.reporting.bench_text import operations_text
from foveal.tiles import split
from samples import error_of, headless, nano, shaken

SIZE = (64, 96)
CONFIG = SegBlocksConfig(0.6, "entropy", 32, 1, 2)
SPEED = {f"{side}_{what}" for side in ("dense", "tiles") for what in ("macs", "ms", "gflops")}


@pytest.fixture(autouse=True)
def untuned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "tuning", nullcontext)


def task(network: Any, **changes: Any) -> Task:
    card = Card("swiftnet_nano", tuple("abcde"), default_palette(5))
    image = torch.stack([street(seed, SIZE)[0] for seed in (24, 25)])
    return replace(Task(Model("small", network, card), image, "segblocks", [CONFIG], [], 2), **changes)


@pytest.fixture(scope="module")
def found() -> OperationsResult:
    torch.manual_seed(0)
    return operations(task(nano()))


@pytest.fixture(scope="module")
def result(found: OperationsResult) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(found)))


def test_every_map_has_a_row(result: dict[str, Any]) -> None:
    names = [row["name"] for row in result["nodes"]]
    assert names[:2] == ["encoder.stem.0.0", "encoder.stem.1.0"]
    assert names[-1] == "head.classify.2"
    assert "head.context" in names and "head.interpolate_1" in names
    assert not [name for name in names if "getattr" in name]
    for row in result["nodes"]:
        assert (
            set(row) == {"name", "stage", "operation", "shape", "dense_algorithm", "tiles_algorithm"} | SPEED
        )
        assert row["dense_ms"] > 0 < row["tiles_ms"]
    first, *_, last = result["nodes"]
    assert (first["shape"], last["shape"]) == ([2, 16, 32, 48], [2, 5, 16, 24])
    assert (first["operation"], last["operation"]) == ("3x3/2 3>16 norm clamp", "1x1 48>5")
    assert {first["dense_algorithm"], last["tiles_algorithm"]} <= {*ALGORITHMS, "torch"}


def test_macs_are_those_of_the_network(result: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network = nano()
    asked = task(network)
    method = SegBlocks.from_config(fuse(network), CONFIG)
    with torch.no_grad():
        plan = method.decide(asked.image)
        tiles = count_macs(lambda: method.network(split(asked.image, plan))).total
    everything = result["stages"][-1]
    assert everything["dense_macs"] == result["dense_macs"] == count_macs(lambda: network(asked.image)).total
    assert everything["tiles_macs"] == tiles
    assert result["plan"] == {
        **{"budget": 0.6, "max_level": 1, "tile": 32, "policy": "entropy"},
        **{"work": round(float(plan.work.mean()), 4), "tiles": int(plan.tiles.sum())},
    }


def test_stages_are_sums(result: dict[str, Any]) -> None:
    *stages, everything = result["stages"]
    assert [row["stage"] for row in stages] == list(dict.fromkeys(row["stage"] for row in result["nodes"]))
    assert {"encoder.stem", "encoder.stages", "head.context", "head", "head.lateral"} <= {
        row["stage"] for row in stages
    }
    for key in ("dense_macs", "tiles_macs", "dense_ms", "tiles_ms"):
        assert everything[key] == pytest.approx(sum(row[key] for row in stages), abs=0.01)
        assert everything[key] == pytest.approx(sum(row[key] for row in result["nodes"]), abs=0.01)
    for row in result["stages"]:
        assert set(row) == {"stage"} | SPEED
        assert row["tiles_gflops"] == pytest.approx(
            2e-6 * row["tiles_macs"] / row["tiles_ms"], rel=0.05, abs=0.1
        )


def test_what_is_done_around_the_network_is_timed(result: dict[str, Any]) -> None:
    assert list(result["around"]) == ["look", "policy", "tables", "split", "compose", "classify"]
    assert set(result["whole"]) == {"dense_ms", "tiles_ms"}
    assert all(ms > 0 for ms in (*result["around"].values(), *result["whole"].values()))
    assert (result["model"], result["batch"], result["repeat"], result["size"]) == ("small", 2, 2, [64, 96])


def test_the_text_has_every_row(found: OperationsResult, result: dict[str, Any]) -> None:
    text = operations_text(found)
    for row in (*result["nodes"], *result["stages"]):
        assert row.get("name", row.get("stage")) in text
    for words in ("small", "2 x 96 x 64 px", "tiles of 32 px", "GFLOP/s", "policy", "tables", "1 thread;"):
        assert words in text


def test_any_network_that_can_be_traced_is_timed() -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = headless()

        def forward(self, x: Tensor) -> Tensor:
            few, many = self.net(x).split([2, 3], 1)
            return torch.cat([many, few.sigmoid()], 1)

    found = operations(task(shaken(Halves()).double(), image=torch.rand(1, 3, *SIZE, dtype=torch.float64)))
    assert [row.name for row in found.nodes] == [
        *("net.0", "net.3", "net.6"),
        *("getitem", "getitem_1", "sigmoid", "cat"),
    ]
    assert [row.stage for row in found.nodes] == ["net.0", "net.3", "net.6", *["network"] * 4]
    assert {row.dense_algorithm for row in found.nodes} == {"torch", None}


def test_the_network_is_left_as_it_was() -> None:
    given = task(shaken(headless()))
    before = copy.deepcopy(given.model.network.state_dict())
    operations(given)
    assert all(torch.equal(value, before[key]) for key, value in given.model.network.state_dict().items())


class ByValue(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": Model("by value", ByValue(), None)}, "and ByValue cannot be traced at "),
        ({"method": "dense"}, "on the one plan of the method segblocks, given 'dense'"),
        ({"method": "coarse_to_fine"}, "given 'coarse_to_fine'"),
        ({"configs": [replace(CONFIG, budget=0.1)]}, "the cheapest plan"),
        ({"configs": [replace(CONFIG, policy="oracle")]}, "needs labels"),
        ({"image": torch.full((1, 3, *SIZE), torch.nan)}, "NaN"),
    ],
)
def test_what_cannot_be_timed_is_refused(changes: dict[str, Any], message: str) -> None:
    assert message in error_of(lambda: operations(task(headless(), **changes)))


def test_a_convolution_in_a_few_words() -> None:
    weight, ones = torch.rand(8, 4, 3, 5), torch.ones(8)
    assert geometry(Convolution(weight)) == "3x5 4>8"
    assert geometry(Convolution(weight, stride=2, dilation=3, groups=2)) == "3x5/2*3 8>8 2 groups"
    around = Convolution(weight, prologue=Prologue(ones[:4], ones[:4]), residual_scale=ones, low=0.0)
    assert geometry(around) == "3x5 4>8 norm shortcut clamp"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model"))


def test_the_command_times_the_plan_of_the_first_budget(model: Path) -> None:
    small = ("bench", "--model", model, "--size", "64x96", "--repeat", 1, "--no-keep-memory", "--ops")
    found = parsed(run(*small, "--budget", 0.7, 0.6, "--max-level", 1, "--json"))
    assert (found["plan"]["budget"], found["plan"]["max_level"]) == (0.7, 1)
    assert {"machine", "threads", "torch", "model", "nodes", "stages", "whole", "around"} <= set(found)
    text = run(*small)
    assert text.exit_code == 0 and "at budget 0.4" in text.stdout and "encoder.stem" in text.stdout
    for words in (("--runtimes", "torch"), ("--memory",), ("--picture", "x.png")):
        assert f"leave {words[0]} out" in refused(run(*small, *words))
