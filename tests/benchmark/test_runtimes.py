from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from foveal.benchmark import runtimes as module
from foveal.benchmark.runtimes import (
    RUNTIMES,
    Backend,
    Case,
    Choice,
    Runtime,
    choose_runtimes,
    difference,
    fold_norms,
    pytorch,
)
from foveal.benchmark.runtimes import prepare as prepare_choice
from foveal.benchmark.runtimes.case import Variant, most_faithful
from foveal.benchmark.runtimes.openvino import deep_calls
from foveal.models import create_model
from samples import error_of, headless, nano, shaken


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    torch.manual_seed(0)
    network = fold_norms(shaken(headless()))
    images = [torch.rand(1, 3, 33, 47) for _ in range(5)]
    yield Case(network, images[0], 1, tmp_path_factory.mktemp("onnx"), images[1:])


def test_a_runtime_that_fails_is_named(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(case: Case) -> Runtime:
        raise RuntimeError("no such\noperation")

    monkeypatch.setitem(RUNTIMES, "bad", Backend("bad", {"f32": Variant(fail)}))
    message = error_of(lambda: prepare_choice(Choice("bad", "f32"), case))
    assert message == (
        "the runtime 'bad' cannot run this network in f32 (RuntimeError: no such operation); leave it out"
    )


def test_int8_needs_images(case: Case) -> None:
    bare = replace(case, calibration=())
    message = error_of(lambda: prepare_choice(Choice("openvino", "int8"), bare))
    assert message == "the runtime 'openvino' needs images to calibrate int8; give some"


def test_runtimes_are_chosen_by_name_or_all_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_runtimes(["torch", "torch"]) == ([Choice("torch", "f32")], [])
    assert "did you mean 'openvino'? available: torch" in error_of(lambda: choose_runtimes(["openvin"]))
    assert "give some of torch" in error_of(lambda: choose_runtimes([]))
    assert "no precision named 'f16'; give some of f32" in error_of(lambda: choose_runtimes(None, ["f16"]))
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    monkeypatch.setattr(pytorch, "find_compiler", lambda: None)
    choices, sentences = choose_runtimes()
    assert choices == [Choice("torch", "f32"), Choice("foveal", "f32")]
    assert [text.split("'")[1] for text in sentences] == ["compile", "onnxruntime", "openvino"]
    assert "pip install 'foveal[bench]'" in error_of(lambda: choose_runtimes(["openvino"]))
    assert "C++ compiler" in error_of(lambda: choose_runtimes(["compile"]))


def test_every_precision_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "nncf" else object())
    choices, sentences = choose_runtimes(["torch", "openvino", "onnxruntime"], ["bf16", "int8"])
    assert choices == [Choice("torch", "bf16"), Choice("openvino", "bf16"), Choice("onnxruntime", "int8")]
    assert [text.split(":")[0] for text in sentences] == [
        "the runtime 'torch' is not available in int8",
        "the runtime 'openvino' is not available in int8",
        "the runtime 'onnxruntime' is not available in bf16",
    ]
    assert "nncf must be installed" in sentences[1]


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


def test_the_choice_that_agrees_with_f32_is_kept(case: Case) -> None:
    choices = {"other": Runtime(lambda image: -case.network(image)), "same": Runtime(case.network)}
    assert most_faithful(choices, case) == "same"


@pytest.mark.parametrize("name", ["torch", "onnxruntime", "openvino", "foveal"])
def test_runtimes_give_the_logits_of_the_network(name: str, case: Case) -> None:
    assert agrees(Choice(name, "f32"), case, 1e-4)


@pytest.mark.parametrize("choice", [Choice("torch", "bf16"), Choice("openvino", "bf16")])
def test_bf16_is_near_the_network(choice: Choice, case: Case) -> None:
    assert agrees(choice, case, 0.03)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_int8_is_near_the_network(name: str, case: Case) -> None:
    assert agrees(Choice(name, "int8"), case, 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(RUNTIMES))
def test_runtimes_run_a_whole_network(name: str, tmp_path: Path) -> None:
    case = Case(fold_norms(nano()), torch.rand(2, 3, 65, 97), 1, tmp_path)
    assert agrees(Choice(name, "f32"), case, 1e-4)


def agrees(choice: Choice, case: Case, tolerance: float) -> bool:
    for package in RUNTIMES[choice.runtime].variants[choice.precision].packages:
        pytest.importorskip(package)
    runtime = prepare_choice(choice, case)
    with torch.inference_mode():
        for image in (case.image, torch.rand_like(case.image)):
            expected = case.network(image)
            for _ in range(2):
                assert difference(runtime.run(runtime.lay(image)), expected) < tolerance
    return bool(runtime.settings)


@pytest.mark.slow
def test_a_compiled_network_is_never_compiled_again(case: Case) -> None:
    runtime = prepare_choice(Choice("compile", "f32"), case)
    with pytest.raises(RuntimeError, match="recompile"):
        runtime.run(runtime.lay(case.image[:, :, :32]))


@pytest.mark.slow
def test_several_sizes_are_compiled_side_by_side(case: Case) -> None:
    small = replace(case, image=case.image[:, :, :32, :32].contiguous())
    runtimes = [prepare_choice(Choice("compile", "f32"), one) for one in (case, small)]
    with torch.inference_mode():
        for runtime, one in zip(runtimes, (case, small), strict=True):
            assert difference(runtime.run(runtime.lay(one.image)), case.network(one.image)) < 1e-4


def test_quantisation_may_walk_deep_networks() -> None:
    def depth(left: int) -> int:
        return left and 1 + depth(left - 1)

    before = sys.getrecursionlimit()
    with deep_calls(10 * before):
        assert depth(5 * before) == 5 * before
    assert sys.getrecursionlimit() == before
    with deep_calls(1):
        assert sys.getrecursionlimit() == before
