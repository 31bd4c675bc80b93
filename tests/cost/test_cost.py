from __future__ import annotations

import subprocess
import sys
import time
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from foveal.cost import Macs, Timing, alternate, count_macs, keep_memory, measure, relative_macs
from foveal.kernels.build import OBSERVER
from foveal.methods import Dense, SegBlocks
from foveal.models import create_model
from foveal.policies import Uniform
from samples import headless


def macs_of(module: nn.Module, *size: int) -> Macs:
    return count_macs(lambda: module(torch.rand(*size)))


@pytest.mark.parametrize(
    ("module", "size", "expected"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), (2, 3, 10, 12), 2 * 10 * 12 * 8 * 3 * 9),
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), (1, 3, 11, 13), 6 * 7 * 8 * 3 * 9),
        (nn.Conv2d(6, 8, 3, groups=2), (1, 6, 10, 12), 8 * 10 * 8 * 3 * 9),
        (nn.Conv2d(6, 6, 5, padding=2, groups=6), (1, 6, 10, 12), 10 * 12 * 6 * 25),
        (nn.Conv2d(4, 4, (1, 3), dilation=2), (1, 4, 10, 12), 10 * 8 * 4 * 4 * 3),
        (nn.Conv2d(4, 4, 1, bias=False), (0, 4, 10, 12), 0),
    ],
)
def test_convolutions_cost_outputs_times_taps(
    module: nn.Module, size: tuple[int, ...], expected: int
) -> None:
    assert macs_of(module, *size) == Macs(convolution=expected)


def test_matrix_products_cost_their_three_sides() -> None:
    assert macs_of(nn.Linear(7, 5), 3, 7) == Macs(product=3 * 7 * 5)
    assert count_macs(lambda: torch.rand(4, 5) @ torch.rand(5, 6)) == Macs(product=4 * 5 * 6)
    assert count_macs(lambda: torch.bmm(torch.rand(2, 4, 5), torch.rand(2, 5, 6))) == Macs(product=240)


@pytest.mark.parametrize("options", [{"scale_factor": 2}, {"size": (8, 10)}])
def test_bilinear_interpolation_costs_4_a_sample(options: dict[str, object]) -> None:
    x = torch.rand(2, 3, 4, 5)
    found = count_macs(lambda: F.interpolate(x, mode="bilinear", align_corners=False, **options))
    assert found == Macs(interpolation=4 * 2 * 3 * 8 * 10)


def test_norms_activations_pooling_and_nearest_neighbours_are_free() -> None:
    x = torch.rand(1, 4, 8, 8)
    free = nn.Sequential(nn.BatchNorm2d(4).eval(), nn.ReLU(), nn.MaxPool2d(2), nn.Upsample(scale_factor=2))
    assert count_macs(lambda: free(x) + x * 3) == Macs()


def test_the_total_is_all_kinds_together() -> None:
    twice = [nn.Upsample(scale_factor=2, mode="bilinear")] * 2
    network = nn.Sequential(nn.Conv2d(3, 4, 1), *twice, nn.Conv2d(4, 1, 1), nn.Flatten())
    found = macs_of(nn.Sequential(network, nn.Linear(256, 2), nn.Linear(2, 3)), 1, 3, 4, 4)
    assert found == Macs(convolution=192 + 1024, interpolation=1024 + 4096, product=512 + 6)
    assert found.total == 192 + 1024 + 1024 + 4096 + 512 + 6
    assert all(type(count) is int for count in (found.convolution, found.interpolation, found.product))


def test_counting_runs_once_without_gradients_and_leaves_no_trace() -> None:
    runs: list[bool] = []
    count_macs(lambda: runs.append(torch.is_grad_enabled()))
    assert runs == [False]
    assert torch.is_grad_enabled()


def test_counting_loads_no_compiler() -> None:
    """Which takes seconds."""
    counted = "import sys, torch; from foveal.cost import count_macs; count_macs(lambda: torch.eye(2))"
    subprocess.run(
        [sys.executable, "-c", f"{counted}; assert 'torch._dynamo' not in sys.modules"], check=True
    )


def test_counting_ends_where_the_run_raises() -> None:
    with pytest.raises(ZeroDivisionError):
        count_macs(lambda: 1 / 0)
    assert torch.is_grad_enabled()
    assert count_macs(lambda: None) == Macs()


def giga(name: str) -> float:
    with torch.device("meta"):
        network, image = create_model(name, 19).eval(), torch.empty(1, 3, 1024, 2048)
    return count_macs(lambda: network(image)).convolution / 1e9


@pytest.mark.parametrize(
    ("name", "expected", "tolerance"),
    [
        ("swiftnet_rn18", 103.6, 1.0),
        ("swiftnet_rn50", 205.0, 2.05),
        ("swiftnet_efflite1", 24.5, 0.5),
        ("swiftnet_nano", 6.2, 0.2),
    ],
)
def test_networks_cost_what_is_stated(name: str, expected: float, tolerance: float) -> None:
    assert giga(name) == pytest.approx(expected, abs=tolerance)


def test_runs_alternate_and_warm_up_is_not_counted() -> None:
    order: list[str] = []
    runs = {name: (lambda name=name: order.append(name)) for name in ("dense", "adaptive", "third")}
    times = alternate(runs, repeat=3, warmup=2)
    assert order == ["dense", "adaptive", "third"] * 5
    assert list(times) == ["dense", "adaptive", "third"]
    assert all(len(timing.runs) == 3 for timing in times.values())


def test_times_are_milliseconds() -> None:
    times = alternate({"sleep": lambda: time.sleep(0.02)}, repeat=2, warmup=0)["sleep"]
    assert 20 <= times.median < 500


def test_median_and_95th_percentile() -> None:
    timing = Timing(tuple(float(k) for k in (5, 1, 4, 2, 3)))
    assert timing.median == 3
    assert timing.p95 == 5
    assert Timing(tuple(float(k) for k in range(100))).p95 == 95


def test_the_allocator_keeps_memory_where_it_can() -> None:
    assert keep_memory() is sys.platform.startswith("linux")
    assert keep_memory() is keep_memory()


def test_other_systems_keep_their_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_memory() is False


def test_a_method_is_measured_beside_its_dense_network() -> None:
    network, image = headless(), torch.rand(1, 3, 64, 64)
    cost = measure(SegBlocks(network, Uniform(16, 1)).eval(), image)
    assert cost.dense_macs == count_macs(lambda: Dense(network)(image).labels)
    assert 4 * cost.macs.convolution == cost.dense_macs.convolution
    assert cost.dense_macs.interpolation >= 4 * 64 * 64
    assert (cost.ms, cost.dense_ms) == (None, None)
    timed = measure(SegBlocks(network, Uniform(16, 1)).eval(), image, repeat=2)
    assert len(timed.ms.runs) == len(timed.dense_ms.runs) == 2
    assert timed.macs == cost.macs


def test_counts_are_the_same_under_inference_mode() -> None:
    conv, image = nn.Conv2d(3, 4, 3, padding=1), torch.rand(1, 3, 8, 8)
    expected = count_macs(lambda: conv(image))
    with torch.inference_mode():
        assert count_macs(lambda: conv(image)) == expected
    assert expected.convolution == 3 * 4 * 9 * 64


@pytest.mark.parametrize("answers", [(1, 1), (0, 1), (1, 0)])
def test_the_allocator_is_told_to_map_nothing_and_to_give_nothing_back(
    answers: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    told, left = [], list(answers)

    def mallopt(parameter: int, value: int) -> int:
        told.append((parameter, value))
        return left.pop(0)

    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("ctypes.CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    assert keep_memory() is all(answers)
    assert told == [(-4, 0), (-1, 2**31 - 1)][: len(told)] and len(told) == 1 + answers[0]
    monkeypatch.setattr("ctypes.CDLL", lambda name: SimpleNamespace())
    assert keep_memory() is False


def test_transposed_convolutions_cost_inputs_times_taps() -> None:
    assert macs_of(nn.ConvTranspose2d(4, 6, 3, stride=2), 1, 4, 5, 7) == Macs(convolution=5 * 7 * 4 * 6 * 9)


def test_shrinking_with_a_filter_costs_4_a_sample_too() -> None:
    x = torch.rand(2, 3, 16, 16)
    found = count_macs(lambda: F.interpolate(x, size=(5, 7), mode="bilinear", antialias=True))
    assert found == Macs(interpolation=4 * 2 * 3 * 5 * 7)


def test_all_kinds_are_counted_under_inference_mode() -> None:
    x, weight, found = torch.rand(1, 3, 4, 4), torch.rand(2, 3), []
    with torch.inference_mode():
        assert count_macs(lambda: F.linear(torch.rand(5, 3), weight)) == Macs(product=30)
        assert count_macs(lambda: F.interpolate(x, size=(8, 8), mode="bilinear")) == Macs(interpolation=768)
        assert count_macs(lambda: torch.einsum("ab,cb->ac", weight, weight)) == Macs(product=12)
        assert count_macs(lambda: x.softmax(1).reshape(-1).sum()) == Macs()
        assert count_macs(lambda: found.append(x.softmax(1, dtype=torch.float64))) == Macs()
    assert found[0].dtype == torch.float64


def test_what_is_counted_computes_what_it_does_alone() -> None:
    x, found = torch.rand(2, 3), []
    count = partial(count_macs, lambda: found.append(run()))

    def run() -> torch.Tensor:
        wide = x.to(torch.float64)
        return torch.addmm(wide.new_ones(2, 2), wide, wide.new_full((3, 2), 0.25), beta=3, alpha=2)

    assert count() == Macs(product=12)
    assert count_macs(count) == Macs()  # a count within another one is not part of that
    assert all(one.dtype == torch.float64 and torch.equal(one, run()) for one in found) and len(found) == 2


def test_kernels_are_observed_until_the_count_ends_and_then_by_who_counted_before() -> None:
    seen = []

    def kernel() -> None:
        seen.append(OBSERVER.get())
        OBSERVER.get()("interpolation", 5)

    def outer() -> None:
        kernel()
        assert count_macs(lambda: [kernel(), kernel()]) == Macs(interpolation=10)
        kernel()

    assert count_macs(outer) == Macs(interpolation=10)
    assert seen[0] == seen[3] != seen[1]
    assert OBSERVER.get() is None
    with pytest.raises(ZeroDivisionError):
        count_macs(lambda: 1 / 0)
    assert OBSERVER.get() is None


def test_a_part_of_a_network_is_a_share_of_it_as_it_answers() -> None:
    part, whole = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)), nn.Conv2d(3, 8, 1)
    assert relative_macs(part, whole, (1, 1)) == 0.25  # in training, one sample has no variance
    assert all(module.training for module in part.modules()) and int(part[1].num_batches_tracked) == 0
    assert relative_macs(nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 1), (3, 5)) == 9 * 3 / 15
    assert relative_macs(nn.Conv2d(3, 2, 1), nn.Identity(), (4, 5)) == 3 * 2 * 20
    assert relative_macs(nn.Identity(), nn.Identity(), (4, 5)) == 0


class Particular(nn.Conv2d):
    """Takes what is like its weights, and may not be copied."""

    def __deepcopy__(self, _: object) -> None:
        raise AssertionError("it is copied")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert (x.dtype, x.device) == (self.weight.dtype, self.weight.device)
        return super().forward(x)


@pytest.mark.parametrize("like", [{}, {"dtype": torch.float64}, {"device": "meta"}])
@pytest.mark.parametrize("channels", [3, 5])
def test_a_part_is_given_what_its_network_takes(channels: int, like: dict) -> None:
    network = Particular(channels, 4, 1, **like).eval()
    assert relative_macs(network, network, (6, 12)) == 1
    assert relative_macs(network, network, (6, 12), level=1) == 1 / 4
