from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foveal.kernels import build as native
from foveal.ops import classify, compose_tiles, convolve, cut_tiles, enlarge, fetch_halo, halve, max_pool
from foveal.ops.halve import halve_once
from foveal.ops.op import Backend, Op, always

EVERY = [classify, compose_tiles, convolve, cut_tiles, enlarge, fetch_halo, halve_once, max_pool]


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
