from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from foveal.kernels import build as native
from foveal.ops import Convolution, tuning
from foveal.ops.convolve import autotune as choice
from foveal.ops.convolve.native import native as convolve_in_c

pytestmark = pytest.mark.skipif(not native.available(), reason="no compiler")


def layer(channels: int = 32, outputs: int = 32, kernel: int = 3, stride: int = 1) -> Convolution:
    weight = torch.randn(outputs, channels, kernel, kernel)
    return Convolution(weight, None, stride, (kernel // 2, kernel // 2))


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Choices of this test alone."""
    monkeypatch.setattr(choice, "_file", lambda: tmp_path / "choices.json")
    choice.choices.cache_clear()
    yield tmp_path / "choices.json"
    choice.choices.cache_clear()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Make every algorithm take the seconds that a test says."""
    seconds: dict[str, float] = {}

    def fastest(names, run):
        for name in names:
            run(name)
        return min(names, key=lambda name: seconds.get(name, 1.0))

    monkeypatch.setattr(choice, "_fastest", fastest)
    return seconds


def test_what_was_measured_is_used_and_kept(fresh: Path, clock: dict[str, float]) -> None:
    x, c = torch.randn(1, 32, 8, 8), layer()
    clock["winograd2"] = 0.1
    with tuning():
        out = convolve_in_c(x, None, c)
    key = choice.describe(x, None, c)
    assert json.loads(fresh.read_text()) == {key: "winograd2"}
    choice.choices.cache_clear()
    assert choice.choose(x, None, c, lambda name: None) == "winograd2"
    torch.testing.assert_close(convolve_in_c(x, None, c), out)


def test_nothing_is_measured_unless_asked_for(fresh: Path, clock: dict[str, float]) -> None:
    convolve_in_c(torch.randn(1, 32, 8, 8), None, layer())
    assert not fresh.exists() and not choice.choices()


def test_a_layer_used_before_it_was_measured_follows_the_measurement(clock: dict[str, float]) -> None:
    x, c = torch.randn(1, 32, 16, 16), layer()
    first = choice.choose(x, None, c, lambda name: None)
    clock["direct" if first != "direct" else "winograd2"] = 0.1
    with tuning():
        convolve_in_c(x, None, c)
    assert choice.choose(x, None, c, lambda name: None) != first


def test_the_fastest_of_cold_runs_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    seconds = iter([5.0, 1.0, 2.0, 2.5, 3.0, 2.5])  # direct: 5, 2, 3; onednn: 1, 2.5, 2.5

    def run(name: str) -> None:
        now[0] += next(seconds)

    monkeypatch.setattr(choice.time, "perf_counter", lambda: now[0])
    assert choice._fastest(("direct", "onednn"), run) == "onednn"


@pytest.mark.parametrize("content", ["", "{", '["direct"]', '{"a": "magic", "b": 3}'])
def test_a_damaged_file_is_measured_again(fresh: Path, content: str) -> None:
    fresh.write_text(content)
    assert choice.choices() == {}


def test_a_folder_that_cannot_be_written_is_no_error(monkeypatch: pytest.MonkeyPatch, clock) -> None:
    monkeypatch.setattr(choice, "_file", lambda: Path("/proc/no/such/folder/choices.json"))
    with tuning():
        convolve_in_c(torch.randn(1, 32, 8, 8), None, layer())
    assert len(choice.choices()) == 1


@pytest.mark.parametrize(
    ("c", "names"),
    [
        (layer(), {"direct", "winograd2", "winograd4", "onednn"}),
        (layer(stride=2), {"direct", "onednn"}),
        (layer(kernel=1), {"direct", "onednn"}),
        (layer(outputs=33), {"direct", "onednn"}),
        (Convolution(torch.randn(4, 4, 2, 2), None, 1, (0, 0)), {"direct"}),
        (
            Convolution(torch.randn(32, 32, 3, 3), None, 1, (1, 1), high=4.0),
            {"direct", "winograd2", "winograd4"},
        ),
    ],
)
def test_only_algorithms_that_can_compute_a_layer_are_tried(c: Convolution, names: set[str]) -> None:
    assert set(choice.algorithms(c)) <= names
    assert names - {"onednn"} <= set(choice.algorithms(c))


def test_squares_that_hang_over_count_where_nothing_was_measured() -> None:
    c = layer(64, 64)
    assert choice.expected(c, torch.empty(1, 64, 64, 64), None) == "winograd4"
    assert choice.expected(c, torch.empty(100, 64, 2, 2), None) == "winograd2"
    assert choice.expected(c, torch.empty(100, 64, 1, 1), None) == "direct"
