from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foveal.kernels import build as native
from foveal.ops import (
    classify,
    compose_tiles,
    convolve,
    cut_tiles,
    enlarge,
    fetch_halo,
    halve,
    max_pool,
    resize,
)
from foveal.ops.halve import halve_once
from foveal.ops.op import Backend, Op, always

EVERY = [classify, compose_tiles, convolve, cut_tiles, enlarge, fetch_halo, halve_once, max_pool, resize]


def check(x: Tensor) -> None:
    if x.ndim != 1:
        raise ValueError("one axis")


def doubled() -> Op:
    rows = (
        Backend("small", lambda x: len(x) < 3, lambda x: 2 * x, lambda: ": it needs less than 3 numbers"),
        Backend("reference", always, lambda x: x + x + 0.25),
    )
    return Op("double", check, rows)


def test_the_first_backend_that_supports_a_case_wins() -> None:
    op = doubled()
    assert op(torch.ones(2)).tolist() == [2, 2] and op(torch.ones(3)).tolist() == [2.25] * 3
    assert op(torch.ones(2), backend="reference").tolist() == [2.25, 2.25]
    assert op.supports("small", torch.ones(2)) and not op.supports("small", torch.ones(3))


def test_a_forced_backend_that_cannot_is_an_error_that_says_what_it_needs() -> None:
    message = (
        "'small' of double does not support this case: it needs less than 3 numbers; use another of reference"
    )
    with pytest.raises(ValueError, match=message):
        doubled()(torch.ones(3), backend="small")
    with pytest.raises(ValueError, match="double has no backend 'metal'; available: small, reference"):
        doubled()(torch.ones(3), backend="metal")
    with pytest.raises(ValueError, match="one axis"):
        doubled()(torch.ones(2, 2), backend="reference")


@pytest.mark.parametrize("op", EVERY, ids=lambda op: op.name)
def test_every_operation_has_the_same_table(op: Op) -> None:
    assert op.names == ("native", "torch", "reference")
    assert op.__doc__ == op.backends[-1].run.__doc__ and op.__doc__


@pytest.mark.parametrize("backend", ["torch", "reference", *(["native"] if native.available() else [])])
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 5), (8, 6)])
def test_backends_halve_alike(backend: str, size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(halve(x, backend=backend), halve(x.double(), backend="reference").float())
    assert halve(x, 0) is x
    assert torch.equal(halve(x, 2, backend=backend), halve(halve(x, backend=backend), backend=backend))


LAYOUTS = {
    "planes": lambda x: x,
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "lines of another image": lambda x: torch.cat([x, x], 3)[..., : x.shape[3]],
    "every other sample": lambda x: x.repeat_interleave(2, 3)[..., ::2],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sides", [(1, 1), (5, 40), (13, 17), (26, 34), (39, 20), (60, 80)], ids=str)
@pytest.mark.parametrize("backend", ["torch", *(["native"] if native.available() else [])])
def test_backends_resize_alike(backend: str, sides: tuple[int, int], layout: str) -> None:
    x = torch.rand(2, 3, 39, 53, generator=torch.Generator().manual_seed(sum(sides)))
    exact = resize(x.double(), sides, backend="reference")
    found = resize(LAYOUTS[layout](x), sides, backend=backend)
    assert found.shape == (2, 3, *sides)
    error = 2e-6 if backend == "native" else 2e-5  # PyTorch computes weights in single precision
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=error)
    assert bool((resize(torch.ones_like(x), sides, backend=backend) - 1).abs().max() < 2e-6)


def test_resizing_keeps_what_has_its_sides_and_carries_gradients() -> None:
    x = torch.rand(1, 2, 6, 7, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(resize(x, (6, 7)), x)
    assert torch.autograd.gradcheck(lambda x: resize(x, (3, 5), backend="reference"), x)
    for size in ((0, 3), (-1, 3)):
        with pytest.raises(ValueError, match=f"{size[0]}x3 samples; give sides of at least 1"):
            resize(x, size)
    with pytest.raises(ValueError, match=r"the map is \[6, 7\]; give \[N, C, H, W\]"):
        resize(torch.rand(6, 7), (3, 3))
