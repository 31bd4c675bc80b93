"""Speed of single operations, their backends beside one another.

Groups are an operation at one size; rows are backends of it, and algorithms of a convolution. Caches
are warm here as they are not in a network: `foveal bench --ops` says what an operation takes there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from foveal.geometry.halo_table import halo_table
from foveal.geometry.layout import Halo, Layout
from foveal.geometry.plan import Plan, grid
from foveal.kernels import build as native
from foveal.kernels.abi import index_of
from foveal.ops import (
    Convolution,
    Pooling,
    classify,
    compose_tiles,
    convolve,
    cut_tiles,
    enlarge,
    fetch_halo,
    max_pool,
)
from foveal.ops.convolve import ALGORITHMS
from foveal.ops.convolve.autotune import algorithms
from foveal.ops.convolve.native import by_algorithm
from foveal.ops.op import Op

pytest.importorskip("pytest_benchmark")

SIZE, TILE, BUDGET, COARSEST = (512, 1024), 64, 0.4, 2
WHERE = ["dense", "tiles"]
BACKENDS = ["torch", "native"]


class Layer(NamedTuple):
    """A convolution of a network, and the stride of the map that it is given."""

    channels: int
    outputs: int
    kernel: int
    stride: int
    at: int
    groups: int = 1

    def __str__(self) -> str:
        depthwise = "depthwise " * (self.groups > 1)
        window = f"{self.kernel}x{self.kernel}/{self.stride}"
        return f"{depthwise}{window} {self.channels}>{self.outputs} at stride {self.at}"

    def convolution(self) -> Convolution:
        weight = torch.randn(self.outputs, self.channels // self.groups, self.kernel, self.kernel)
        scale = (weight[0].numel()) ** -0.5
        padding = (self.kernel // 2,) * 2
        return Convolution(
            weight * scale, torch.zeros(self.outputs), self.stride, padding, groups=self.groups, low=0.0
        )


LAYERS = [
    Layer(3, 64, 7, 2, 1),
    Layer(64, 64, 3, 1, 4),
    Layer(64, 128, 3, 2, 4),
    Layer(128, 128, 1, 1, 8),
    Layer(512, 512, 3, 1, 32),
]
DEPTHWISE = [Layer(96, 96, 3, 2, 2, 96), Layer(192, 192, 3, 1, 8, 192), Layer(240, 240, 5, 1, 16, 240)]


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


def a_plan() -> Plan:
    """Refine where noise that changes slowly is large, as detail in an image is."""
    noise = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    scores = torch.nn.functional.interpolate(noise, size=grid(SIZE, TILE), mode="bilinear")[0]
    return Plan.from_scores(scores, TILE, SIZE, BUDGET, COARSEST)


def a_layout(side: int = 0, border: int = 1) -> Layout:
    """Lay the plan out, the index of a scale built."""
    layout = a_plan().layout
    if side and native.available():
        for edge in (False, True):
            index_of(layout, side, border, edge)
    return layout


def channels_last(*shape: int) -> Tensor:
    return torch.randn(*shape).contiguous(memory_format=torch.channels_last)


def a_map(channels: int, at: int, where: str, border: int = 1) -> tuple[Tensor, Layout | None]:
    """Draw a map of the whole image, or the tiles of the plan, at a stride."""
    if where == "dense":
        return channels_last(1, channels, SIZE[0] // at, SIZE[1] // at), None
    layout = a_layout(TILE // at, border)
    return channels_last(len(layout), channels, TILE // at, TILE // at), layout


def check(op: Op, backend: str, *arguments: Any) -> None:
    """Skip a backend that cannot take these arguments."""
    if backend == "native" and not native.available():
        pytest.skip("no compiler")
    if backend == "native" and not op.supports(backend, *arguments):
        pytest.skip("the C version cannot take this")


@pytest.mark.parametrize("way", ["torch", *ALGORITHMS])
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("layer", [*LAYERS, *DEPTHWISE], ids=str)
def test_convolve(benchmark: Any, layer: Layer, where: str, way: str) -> None:
    benchmark.group = f"convolve {layer}, {where}"
    c = layer.convolution()
    x, layout = a_map(layer.channels, layer.at, where, max(c.halo[:4]))
    if way == "torch":
        benchmark(convolve, x, layout, c, backend="torch")
        return
    check(convolve, "native", x, layout, c)
    if way not in algorithms(c):
        pytest.skip(f"{way} cannot compute this")
    benchmark(by_algorithm, x, layout, c, algorithm=way)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("side", "border"), [(64, 3), (16, 1), (2, 1)])
def test_tables(benchmark: Any, side: int, border: int, backend: str) -> None:
    """The index of a scale, or the table of PyTorch's version; a layout keeps what was built."""
    benchmark.group = f"tables of {side} samples a side, border {border}"
    if backend == "native" and not native.available():
        pytest.skip("no compiler")
    build: Callable[[Layout], Any] = (
        (lambda layout: index_of(layout, side, border))
        if backend == "native"
        else (lambda layout: halo_table(layout, side, Halo.around(border)))
    )
    benchmark.pedantic(build, setup=lambda: ((a_layout(),), {}), rounds=30, warmup_rounds=2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_cut_tiles(benchmark: Any, backend: str) -> None:
    benchmark.group = "cut_tiles 3 channels"
    image = channels_last(1, 3, *SIZE)
    check(cut_tiles, backend, image)
    benchmark(cut_tiles, image, a_layout(), TILE, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_compose_tiles(benchmark: Any, backend: str) -> None:
    benchmark.group = "compose_tiles 19 channels at stride 4"
    tiles, layout = a_map(19, 4, "tiles")
    check(compose_tiles, backend, tiles, layout)
    benchmark(compose_tiles, tiles, layout, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_fetch_halo(benchmark: Any, backend: str) -> None:
    benchmark.group = "fetch_halo 64 channels at stride 4"
    tiles, layout = a_map(64, 4, "tiles")
    check(fetch_halo, backend, tiles, layout, Halo.around(1))
    benchmark(fetch_halo, tiles, layout, Halo.around(1), backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_max_pool(benchmark: Any, backend: str) -> None:
    benchmark.group = "max_pool 3x3/2 of 64 channels at stride 2"
    tiles, layout = a_map(64, 2, "tiles")
    pooling = Pooling((3, 3), (2, 2), (1, 1), Halo(1, 0, 1, 0, "lowest"))
    check(max_pool, backend, tiles, layout, pooling)
    benchmark(max_pool, tiles, layout, pooling, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_enlarge(benchmark: Any, backend: str) -> None:
    benchmark.group = "enlarge by 2 of 128 channels at stride 8"
    tiles, layout = a_map(128, 8, "tiles")
    check(enlarge, backend, tiles, layout, 2)
    benchmark(enlarge, tiles, layout, 2, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_classify(benchmark: Any, backend: str) -> None:
    benchmark.group = "classify 19 classes at stride 4"
    logits = channels_last(1, 19, SIZE[0] // 4, SIZE[1] // 4)
    check(classify, backend, logits, SIZE)
    benchmark(classify, logits, SIZE, backend=backend)


@pytest.mark.parametrize("coarsest", [1, 2, 3])
def test_plan_from_scores(benchmark: Any, coarsest: int) -> None:
    benchmark.group = "Plan.from_scores"
    scores = torch.rand(1, *grid((1024, 2048), 32))
    benchmark(Plan.from_scores, scores, 32, (1024, 2048), BUDGET, coarsest)
