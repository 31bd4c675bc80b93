"""What does not belong together is refused in one sentence, before any kernel reads beyond its memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from foveal.geometry.layout import Halo, Layout
from foveal.geometry.plan import Plan
from foveal.kernels import build as native
from foveal.ops import (
    Convolution,
    Pooling,
    Prologue,
    classify,
    compose_tiles,
    convolve,
    cut_tiles,
    enlarge,
    fetch_halo,
    halve,
    max_pool,
)
from foveal.ops.convolve.native import by_algorithm
from foveal.tiles.memory import Memory, join

BACKENDS = [*(["native"] if native.available() else []), "torch", "reference"]


def plan(levels: list[list[int]]) -> Plan:
    return Plan(torch.tensor([levels]), 8, (8 * len(levels), 8 * len(levels[0])))


LAYOUT = plan([[0, 0], [0, 0]]).layout
KEPT, _ = join(plan([[0, -1], [0, 0]]).layout, Memory(LAYOUT, ()))
"""Three tiles are computed, one is kept."""
COARSE = plan([[1, 1], [1, 1]]).layout
NINE = Halo.around(1)
POOL = Pooling((3, 3), (1, 1), (1, 1), Halo.around(1, "lowest"))
CONV = Convolution(torch.randn(6, 5, 3, 3), padding=(1, 1))
STEP = Convolution(torch.randn(6, 5, 3, 3), stride=3, padding=(1, 1))


def tiles(count: int = 4, channels: int = 5, *sides: int) -> Tensor:
    return torch.randn(count, channels, *(sides or (4, 4)))


def on_tiles(run: Callable[[Tensor, Layout, Tensor | None, str], Tensor]) -> list[tuple[object, ...]]:
    """Wrong tiles, for every operation that borrows from neighbours."""
    return [
        (lambda b: run(tiles(3), LAYOUT, None, b), r"tiles are \[3, 5, 4, 4\]; the layout needs \[4, C"),
        (lambda b: run(tiles(4, 5, 4, 2), LAYOUT, None, b), r"\[4, 5, 4, 2\].* square ones"),
        (lambda b: run(tiles()[0], LAYOUT, None, b), r"tiles are \[5, 4, 4\]"),
        (lambda b: run(tiles(4, 5, 3, 3), LAYOUT, None, b), "3 samples a side.* no multiple"),
        (lambda b: run(tiles(4, 5, 16, 16), LAYOUT, None, b), "16 samples a side"),
        (lambda b: run(tiles(3), KEPT, None, b), "has 1 tiles kept .* none are given"),
        (lambda b: run(tiles(3), KEPT, tiles(2), b), r"kept tiles are \[2, 5, 4, 4\].*need \[1, 5, 4, 4\]"),
        (lambda b: run(tiles(3), KEPT, tiles(1, 4), b), r"kept tiles are \[1, 4, 4, 4\]"),
        (lambda b: run(tiles(3), KEPT, tiles(1, 5, 2, 2), b), r"kept tiles are \[1, 5, 2, 2\]"),
        (lambda b: run(tiles(), LAYOUT, tiles(1), b), r"kept tiles are \[1, 5, 4, 4\].*need \[0, 5"),
    ]


CASES = {
    "fetch_halo": [
        *on_tiles(lambda x, layout, kept, b: fetch_halo(x, layout, NINE, kept, backend=b)),
        (lambda b: fetch_halo(tiles(), LAYOUT, Halo(left=-1), backend=b), "widths of at least 0"),
    ],
    "max_pool": [
        *on_tiles(lambda x, layout, kept, b: max_pool(x, layout, POOL, kept, backend=b)),
        (lambda b: max_pool(tiles(), LAYOUT, POOL._replace(stride=(3, 3)), backend=b), "divides the side"),
        (lambda b: max_pool(tiles(), LAYOUT, POOL._replace(stride=(1, 2)), backend=b), "for both axes"),
        (lambda b: max_pool(tiles(), LAYOUT, POOL._replace(halo=Halo()), backend=b), "the halo that the"),
        (lambda b: max_pool(tiles(), LAYOUT, POOL._replace(kernel=(5, 3)), backend=b), "the halo that the"),
    ],
    "enlarge": [
        *on_tiles(lambda x, layout, kept, b: enlarge(x, layout, 2, kept, backend=b)),
        (lambda b: enlarge(tiles(), LAYOUT, 0, backend=b), "enlarged by 0; give a whole factor"),
    ],
    "convolve": [
        *on_tiles(lambda x, layout, kept, b: convolve(x, layout, CONV, None, kept, backend=b)),
        (lambda b: convolve(tiles(4, 3), LAYOUT, CONV, backend=b), "has 3 channels, the convolution takes 5"),
        (lambda b: convolve(tiles(1, 3), None, CONV, backend=b), "has 3 channels, the convolution takes 5"),
        (lambda b: convolve(tiles()[0], None, CONV, backend=b), r"dense map is \[N, C, H, W\]"),
        (lambda b: convolve(tiles(), None, CONV, None, tiles(), backend=b), "no kept tiles"),
        (lambda b: convolve(tiles(), LAYOUT, STEP, backend=b), "stride 3 does not divide"),
        (
            lambda b: convolve(tiles(), LAYOUT, CONV, tiles(4, 6, 2, 2), backend=b),
            "residual is .*sizes needs",
        ),
        (lambda b: convolve(tiles(), None, CONV, tiles(), backend=b), r"residual is \[4, 5, 4, 4\]"),
    ],
    "compose_tiles": [
        (lambda b: compose_tiles(tiles(3), LAYOUT, backend=b), r"the layout needs \[4, C"),
        (lambda b: compose_tiles(tiles(3), KEPT, backend=b), r"the layout needs \[4, C"),
        (lambda b: compose_tiles(tiles(4, 5, 3, 3), LAYOUT, backend=b), "no multiple"),
        (
            lambda b: compose_tiles(tiles(), LAYOUT, 1, backend=b),
            "map is at level 1 and the finest tile at 0",
        ),
        (lambda b: compose_tiles(tiles(1), COARSE, -1, backend=b), "map is at level -1"),
    ],
    "cut_tiles": [
        (lambda b: cut_tiles(tiles(1, 5, 8, 7), LAYOUT, 4, backend=b), r"has \[1, C, 8, 8\] at level 0"),
        (lambda b: cut_tiles(tiles(2, 5, 8, 8), LAYOUT, 4, backend=b), r"has \[1, C, 8, 8\] at level 0"),
        (lambda b: cut_tiles(tiles(1, 5, 8, 8)[0], LAYOUT, 4, backend=b), r"map is \[5, 8, 8\]"),
        (lambda b: cut_tiles(tiles(1, 5, 8, 8), COARSE, 4, 1, backend=b), r"has \[1, C, 4, 4\] at level 1"),
        (lambda b: cut_tiles(tiles(1, 5, 8, 8), LAYOUT, 3, backend=b), "3 samples a side are wanted"),
        (lambda b: cut_tiles(tiles(1, 5, 8, 8), LAYOUT, 0, backend=b), "0 samples a side are wanted"),
        (lambda b: cut_tiles(tiles(1, 5, 4, 4), LAYOUT, 4, 1, backend=b), "finest tile at 0"),
    ],
    "classify": [
        (lambda b: classify(tiles(1, 257), (8, 8), backend=b), "257 classes; labels are bytes"),
        (lambda b: classify(tiles(1, 0), (8, 8), backend=b), "0 classes"),
        (lambda b: classify(tiles()[0], (8, 8), backend=b), r"logits are \[5, 4, 4\]"),
        (lambda b: classify(tiles(1, 5, 0, 4), (8, 8), backend=b), "with samples"),
        (lambda b: classify(tiles(1), (0, 8), backend=b), "size is 0x8 px"),
    ],
    "halve": [(lambda b: halve(tiles()[0], backend=b), r"map is \[5, 4, 4\]")],
}
EVERY = [
    pytest.param(run, match, id=f"{name}-{k}")
    for name, cases in CASES.items()
    for k, (run, match) in enumerate(cases)
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("run", "match"), EVERY)
@torch.no_grad()
def test_arguments_that_do_not_belong_together_are_refused(
    backend: str, run: Callable[[str], Tensor], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        run(backend)


@pytest.mark.skipif(not native.available(), reason="no compiler")
def test_a_named_algorithm_checks_its_arguments_too() -> None:
    with pytest.raises(ValueError, match="takes 5"):
        by_algorithm(tiles(1, 3), None, CONV, algorithm="direct")


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"bias": torch.zeros(5)}, r"bias is \[5\]; 6 outputs need \[6\]"),
        ({"residual_scale": torch.zeros(1)}, "residual_scale is"),
        ({"prologue": Prologue(torch.ones(6), torch.ones(5))}, "prologue has numbers"),
        ({"prologue": Prologue(torch.ones(5), torch.ones(5, 1))}, "prologue has numbers"),
        ({"groups": 4}, "with 4 groups"),
        ({"stride": 0}, "stride is 0"),
        ({"padding": (-1, 0)}, "padding"),
    ],
)
def test_a_convolution_of_numbers_that_do_not_fit_is_refused(given: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Convolution(torch.randn(6, 5, 3, 3), **given)


def test_a_weight_is_four_axes() -> None:
    with pytest.raises(ValueError, match=r"weights are \[6, 5\]"):
        Convolution(torch.randn(6, 5))
