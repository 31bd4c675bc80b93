"""Patches and rows at listed places: every backend computes what the reference writes down."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch.nn import functional as F

from foveal.cost import count_macs
from foveal.kernels import build as native
from foveal.ops import Convolution, Prologue, add_rows, convolve_patches
from strategies import sources

FAST = ["torch", *(["native"] if native.available() else [])]


def random_convolution(source: random.Random, channels: int) -> Convolution:
    """Windows of all kinds, with what surrounds them."""
    rows, columns = source.choice([(1, 1), (3, 3), (3, 3), (1, 3), (5, 5), (2, 2)])
    depthwise = source.random() < 0.3
    outputs = channels if depthwise else source.choice([1, 5, 16, 32, 48])
    low, high = source.choice([(-math.inf, math.inf), (0.0, math.inf), (0.0, 6.0)])
    before = None
    if source.random() < 0.3 and not depthwise:
        limits = source.choice([(-math.inf, math.inf), (0.0, 6.0)])
        before = Prologue(torch.rand(channels).double() + 0.5, torch.randn(channels).double(), *limits)
    weight = torch.randn(outputs, 1 if depthwise else channels, rows, columns, dtype=torch.float64)
    return Convolution(
        weight / math.sqrt(channels * rows * columns),
        torch.randn(outputs, dtype=torch.float64) if source.random() < 0.5 else None,
        source.choice([1, 1, 2]),
        dilation=source.choice([1, 1, 2]),
        groups=channels if depthwise else 1,
        prologue=before,
        low=low,
        high=high,
    )


def single(c: Convolution) -> Convolution:
    """The same in single precision."""
    before = c.prologue
    if before is not None:
        before = Prologue(before.scale.float(), before.shift.float(), before.low, before.high)
    bias = None if c.bias is None else c.bias.float()
    return Convolution(
        c.weight.float(), bias, c.stride, c.padding, c.dilation, c.groups, before, None, c.low, c.high
    )


def drawn(source: random.Random) -> tuple[Tensor, Tensor, Convolution]:
    """A table, patches with room for 1, 2 or 4 windows a side or other numbers of them, a convolution."""
    torch.manual_seed(source.randint(0, 2**30))
    channels, samples = source.choice([1, 3, 16, 40, 300]), source.randint(1, 90)
    c = random_convolution(source, channels)
    room = source.choice([(1, 1), (1, 1), (2, 2), (4, 4), (2, 3)])
    sides = [(n - 1) * c.stride + c.dilation * (k - 1) + 1 for n, k in zip(room, c.kernel, strict=True)]
    index = torch.randint(-1, samples, (source.choice([0, 1, 7, 30]), *sides), dtype=torch.int32)
    return torch.randn(samples, channels, dtype=torch.float64), index, c


@pytest.mark.parametrize("backend", FAST)
@settings(max_examples=200)
@given(source=sources())
def test_patches_are_convolved_as_by_the_reference(backend: str, source: random.Random) -> None:
    rows, index, c = drawn(source)
    exact = convolve_patches(rows, index, c, backend="reference")
    given = rows.float(), index.clone()
    found = convolve_patches(*given, single(c), backend=backend)
    assert found.shape == exact.shape and found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=3e-5)
    assert torch.equal(given[0], rows.float()) and torch.equal(given[1], index)


def test_the_reference_is_the_convolution_of_a_map() -> None:
    x = torch.randn(1, 5, 7, 9, dtype=torch.float64)
    c = Convolution(torch.randn(4, 5, 3, 3, dtype=torch.float64), torch.randn(4, dtype=torch.float64))
    number = F.pad(torch.arange(63).view(7, 9), (1, 1, 1, 1), value=-1).int()
    index = number.unfold(0, 3, 1).unfold(1, 3, 1).reshape(63, 3, 3)
    rows = x[0].flatten(1).t()
    found = convolve_patches(rows, index, c, backend="reference").view(7, 9, 4).permute(2, 0, 1)
    torch.testing.assert_close(found, F.conv2d(x, c.weight, c.bias, padding=1)[0])


@pytest.mark.skipif(not native.available(), reason="no compiler")
def test_work_is_that_of_the_outputs_that_are_wanted() -> None:
    rows, index = torch.randn(40, 16), torch.randint(-1, 40, (6, 4, 4), dtype=torch.int32)
    c = Convolution(torch.randn(32, 16, 3, 3))
    assert count_macs(lambda: convolve_patches(rows, index, c)).total == 6 * 4 * 32 * 16 * 9
    assert count_macs(lambda: convolve_patches(rows, index, c, 5)).total == 5 * 32 * 16 * 9
    assert count_macs(lambda: convolve_patches(rows, index, c, backend="torch")).total == 6 * 4 * 32 * 16 * 9
    one = index[:, :3, :3]
    assert count_macs(lambda: convolve_patches(rows, one, c, backend="torch")).total == 6 * 32 * 16 * 9


@pytest.mark.parametrize("backend", [*FAST, "reference"])
def test_gradients_reach_rows_and_weights(backend: str) -> None:
    if backend == "native":
        pytest.skip("kernels are for inference")
    rows = torch.randn(20, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    index = torch.randint(-1, 20, (5, 3, 3), dtype=torch.int32)

    def run(rows: Tensor, weight: Tensor) -> Tensor:
        return convolve_patches(rows, index, Convolution(weight), backend=backend)

    assert torch.autograd.gradcheck(run, (rows, weight))


@pytest.mark.parametrize("backend", [*FAST, "reference"])
@settings(max_examples=100)
@given(source=sources())
def test_rows_are_added_where_they_belong(backend: str, source: random.Random) -> None:
    torch.manual_seed(source.randint(0, 2**30))
    samples, channels, count = (
        source.randint(1, 200),
        source.choice([1, 3, 16, 37, 64]),
        source.randint(1, 50),
    )
    base, rows = torch.randn(samples, channels), torch.randn(count, channels)
    where = torch.randint(-1, count, (samples,), dtype=torch.int32)
    scale = source.choice([None, torch.rand(channels) + 0.5])
    low, high = source.choice([(-math.inf, math.inf), (0.0, math.inf), (0.0, 0.6)])
    before = base.clone(), rows.clone()
    found = add_rows(base, rows, where, scale, low, high, backend=backend)
    for sample in range(samples):
        expected = base[sample] * (1 if scale is None else scale)
        expected = expected + rows[where[sample]] if where[sample] >= 0 else expected
        torch.testing.assert_close(found[sample], expected.clamp(low, high))
    assert torch.equal(base, before[0]) and torch.equal(rows, before[1])


@pytest.mark.parametrize("backend", [*FAST, "reference"])
def test_nothing_may_be_added(backend: str) -> None:
    base, where = torch.randn(9, 16), torch.full((9,), -1, dtype=torch.int32)
    assert torch.equal(add_rows(base, torch.zeros(0, 16), where, None, 0.0, backend=backend), base.relu())


@pytest.mark.parametrize("backend", [*FAST, "reference"])
def test_nan_stays_nan(backend: str) -> None:
    base, rows = torch.zeros(3, 16), torch.full((1, 16), float("nan"))
    found = add_rows(
        base, rows, torch.tensor([-1, 0, -1], dtype=torch.int32), None, 0.0, 6.0, backend=backend
    )
    assert found.isnan().any(1).tolist() == [False, True, False]


ROWS, CONV = torch.randn(10, 5), Convolution(torch.randn(6, 5, 3, 3))
INDEX = torch.zeros(2, 3, 3, dtype=torch.int32)


@pytest.mark.parametrize(
    ("rows", "index", "message"),
    [
        (torch.randn(10, 4), INDEX, r"rows are \[10, 4\]; the convolution takes \[R, 5\]"),
        (ROWS, INDEX.long(), "int64; give int32"),
        (ROWS, INDEX[0], r"index is \[3, 3\]"),
        (ROWS, INDEX[:, :2], r"patches of \(2, 3\) are smaller than the window of \(3, 3\)"),
        (ROWS, INDEX + 10, "names rows from 10 to 10 and there are 10"),
        (ROWS, INDEX - 2, "give -1 for what is 0, and rows from 0 to 9"),
    ],
)
@pytest.mark.parametrize("backend", [*FAST, "reference"])
def test_patches_that_do_not_belong_to_the_table_are_refused(
    backend: str, rows: Tensor, index: Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        convolve_patches(rows, index, CONV, backend=backend)


@pytest.mark.parametrize(
    ("base", "rows", "where", "message"),
    [
        (ROWS, ROWS[:, :4], INDEX[0, 0], r"give \[R, C\] and \[B, C\]"),
        (ROWS, ROWS, INDEX[0, 0], r"give int32 \[10\]"),
        (ROWS, ROWS, torch.zeros(10), "float32; give int32"),
        (ROWS, ROWS[:2], torch.full((10,), 2, dtype=torch.int32), "from 2 to 2 and there are 2"),
        (ROWS, ROWS[:2], torch.full((10,), -2, dtype=torch.int32), "give -1 for none"),
    ],
)
@pytest.mark.parametrize("backend", [*FAST, "reference"])
def test_rows_that_do_not_belong_to_the_map_are_refused(
    backend: str, base: Tensor, rows: Tensor, where: Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        add_rows(base, rows, where, backend=backend)
    with pytest.raises(ValueError, match="scale is"):
        add_rows(ROWS, ROWS, torch.zeros(10, dtype=torch.int32), torch.ones(3), backend=backend)
