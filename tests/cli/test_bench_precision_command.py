"""`foveal bench --precision`: rows, rivals, and where int8 takes its ranges from."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands import SMALL_BENCH, parsed, run
from foveal.benchmark import runtimes as module
from foveal.benchmark.runtimes.case import Variant
from foveal.cli.bench import STREETS
from foveal.data.image import save_image
from foveal.data.synthetic import street
from foveal.kernels import build

pytestmark = pytest.mark.skipif(not build.available(), reason="no compiler")


def test_every_precision_has_rows_and_a_rival(command) -> None:
    result = parsed(command("--budget", 0.6, "--max-level", 1, "--precision", "f32", "bf16", "--json"))
    assert [(row["precision"], row["engine"]) for row in result["adaptive"]] == [
        ("f32", "program"),
        ("bf16", "program"),
    ]
    assert [(row["runtime"], row["precision"]) for row in result["dense"]] == [
        *(("torch", "f32"), ("torch", "bf16"), ("foveal", "f32"), ("foveal", "bf16")),
    ]
    for row in result["adaptive"]:
        best = result["best_static"][row["precision"]]
        assert (best["runtime"], best["precision"]) == ("torch", row["precision"])
        assert row["speedup"] == pytest.approx(best["ms"] / row["ms"], rel=0.05, abs=0.02)


@pytest.fixture
def quantising(monkeypatch: pytest.MonkeyPatch) -> list[module.Case]:
    """Let a runtime "eight" say that it computes in int8, and note what it was prepared for."""
    cases: list[module.Case] = []

    def prepare(case: module.Case) -> module.Runtime:
        cases.append(case)
        return module.Runtime(case.network.forward)

    monkeypatch.setitem(module.RUNTIMES, "eight", module.Backend("eight", {"int8": Variant(prepare)}))
    return cases


EIGHT = ("--runtimes", "eight", "--precision", "int8", "--budget", 0.6, "--max-level", 1, "--json")


def test_int8_without_images_takes_streets_and_says_so(command, quantising: list[module.Case]) -> None:
    result = command(*EIGHT)
    found = parsed(result)
    assert [(row["precision"], row["engine"]) for row in found["adaptive"]] == [("int8", "program")]
    assert found["best_static"]["precision"] == "int8"
    assert result.stderr.startswith("foveal: int8 takes its ranges from generated streets; timings do not")
    assert [tuple(image.shape) for image in quantising[0].calibration] == [(1, 3, 64, 96)] * STREETS


@pytest.mark.usefixtures("quantising")
def test_architectures_with_random_weights_run_in_int8() -> None:
    found = parsed(run("bench", "--model", "swiftnet_nano", *SMALL_BENCH[:2], *EIGHT, "--tile", 32))
    (row,) = found["adaptive"]
    assert (row["precision"], row["engine"], found["weights"]) == ("int8", "program", "random")
    assert 0.5 < row["work"] <= 0.6


def test_int8_takes_given_images_at_the_size_that_is_timed(
    command, quantising: list[module.Case], tmp_path: Path
) -> None:
    for seed in range(2):
        save_image(street(seed, (70, 130))[0], tmp_path / f"{seed}.png")
    result = command(*EIGHT, "--images", tmp_path, "--batch", 2)
    assert parsed(result)["adaptive"]
    assert result.stderr == ""
    assert [tuple(image.shape) for image in quantising[0].calibration] == [(2, 3, 64, 96)] * 2


def test_int8_without_a_runtime_is_said_in_a_sentence(command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    small = ("--size", "64x96", "--repeat", 1, "--no-keep-memory", "--runtimes", "torch")
    words = ("--budget", 0.6, "--max-level", 1, "--json", "--precision", "f32", "int8")
    result = command(*words, small=small)
    assert [row["precision"] for row in parsed(result)["adaptive"]] == ["f32"]
    assert "the runtime 'torch' is not available in int8" in result.stderr
    assert "adaptive rows in int8 are left out, for there is no static runtime in int8" in result.stderr
