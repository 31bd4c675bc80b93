"""Gates, beside the convolution and the mean that they are written as."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from foveal.cost import count_macs
from foveal.fusion import fuse
from foveal.gates import GateConfig, GatedNetwork, Gates
from foveal.gates.gates import Gate, spread, squared
from samples import residual, shaken


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", ["squeeze", "pointwise"])
def test_a_gate_is_a_window_and_the_mean_of_the_map(kind: str, stride: int) -> None:
    gate = shaken(Gate(GateConfig("unit", 6, stride), kind)).double().eval()
    x = torch.randn(3, 6, 11, 14, dtype=torch.float64)
    found = gate.window(x)
    if gate.mean is not None:
        found = found + gate.mean(F.adaptive_avg_pool2d(x, 1))
    torch.testing.assert_close(gate(x), gate.norm(found)[:, 0])
    assert gate(x).shape == (3, -(-11 // stride), -(-14 // stride))


def test_fresh_gates_open_the_share_that_they_are_told() -> None:
    torch.manual_seed(0)
    gate = Gate(GateConfig("unit", 8), "squeeze", 0.3).train()
    assert float((gate(torch.randn(4, 8, 60, 60)) > 0).double().mean()) == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("kind", ["squeeze", "pointwise"])
def test_counted_macs_of_gates_are_those_they_say(kind: str) -> None:
    gated = GatedNetwork(fuse(residual()))
    gates = Gates.of(gated.units, kind).eval()  # type: ignore[arg-type]
    spent = 0
    for number, unit in enumerate(gated.units):
        places = unit.layers[-1].places
        height = round((places * 128 / 192) ** 0.5) * unit.stride
        x = torch.rand(1, unit.channels, height, places * unit.stride**2 // height)
        spent += count_macs(lambda k=number, x=x: gates.logits(k, x)).total
    assert spent == gates.macs(gated.units)


def test_squares_have_the_mean_of_their_logits() -> None:
    values = torch.randn(2, 7, 9, dtype=torch.float64)
    found = squared(values, 4)
    assert found.shape == values.shape and squared(values, 1) is values
    torch.testing.assert_close(found[:, 4, 8], values[:, 4:, 8:].mean((1, 2)))
    torch.testing.assert_close(
        found[:, :4, :4], values[:, :4, :4].mean((1, 2))[:, None, None].expand(-1, 4, 4)
    )
    assert torch.equal(
        spread(torch.arange(6.0).view(1, 2, 3), 2, (3, 5))[0, 2], torch.tensor([3.0, 3, 4, 4, 5])
    )
