"""Which algorithm a convolution takes: one that can compute it, the one that was measured if there is one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from foveal.kernels import autotune
from foveal.kernels import build as native
from foveal.ops import Convolution, convolve, tuning
from foveal.ops.convolve.autotune import AUTOTUNER, algorithms, choose, describe, expected

pytestmark = pytest.mark.skipif(not native.available(), reason="no compiler")


def layer(channels: int = 32, outputs: int = 32, kernel: int = 3, stride: int = 1) -> Convolution:
    weight = torch.randn(outputs, channels, kernel, kernel)
    return Convolution(weight, None, stride, (kernel // 2, kernel // 2))


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path) -> Iterator[Path]:
    """What is measured in this test alone."""
    with AUTOTUNER.kept_in(tmp_path / "choices"):
        yield AUTOTUNER.path


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Make every algorithm take the seconds that a test says."""
    seconds: dict[str, float] = {}

    def fastest(names: tuple[str, ...], run: Callable[[str], object]) -> str:
        for name in names:
            run(name)
        return min(names, key=lambda name: seconds.get(name, 1.0))

    monkeypatch.setattr(autotune, "fastest", fastest)
    return seconds


def test_what_was_measured_is_used_and_kept(fresh: Path, clock: dict[str, float]) -> None:
    x, c = torch.randn(1, 32, 8, 8), layer()
    clock["winograd2"] = 0.1
    with tuning():
        out = convolve(x, None, c, backend="native")
    assert json.loads(fresh.read_text())["record"] == {describe(x, None, c): "winograd2"}
    AUTOTUNER.reload()
    assert choose(x, None, c, lambda name: None) == "winograd2"
    torch.testing.assert_close(convolve(x, None, c, backend="native"), out)


def test_nothing_is_measured_unless_asked_for(fresh: Path, clock: dict[str, float]) -> None:
    convolve(torch.randn(1, 32, 8, 8), None, layer(), backend="native")
    assert not fresh.exists() and not len(AUTOTUNER)


def test_a_layer_used_before_it_was_measured_follows_the_measurement(clock: dict[str, float]) -> None:
    x, c = torch.randn(1, 32, 16, 16), layer()
    first = choose(x, None, c, lambda name: None)
    clock["direct" if first != "direct" else "winograd2"] = 0.1
    with tuning():
        convolve(x, None, c, backend="native")
    assert choose(x, None, c, lambda name: None) != first


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
            {"direct", "winograd2", "winograd4", "onednn"},
        ),
    ],
)
def test_only_algorithms_that_can_compute_a_layer_are_tried(c: Convolution, names: set[str]) -> None:
    assert set(algorithms(c)) <= names
    assert names - {"onednn"} <= set(algorithms(c))


def test_squares_that_hang_over_count_where_nothing_was_measured() -> None:
    c = layer(64, 64)
    assert expected(c, torch.empty(1, 64, 64, 64), None) == "winograd4"
    assert expected(c, torch.empty(100, 64, 2, 2), None) == "winograd2"
    assert expected(c, torch.empty(100, 64, 1, 1), None) == "direct"
