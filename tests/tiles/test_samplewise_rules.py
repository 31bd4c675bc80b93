"""Functions of single samples and of channels on tiles equal the dense ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from foveal.geometry.plan import Plan
from foveal.tiles import split
from tile_rules import Run, assert_equals_dense, image

OTHER = torch.randn(1, 4, 1, 1, dtype=torch.float64)

EACH = torch.randn(2, 4, 1, 1, dtype=torch.float64)

SAMPLE_BY_SAMPLE: dict[str, Run] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "prelu_like": nn.LeakyReLU(0.1),
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "mish": F.mish,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "hardtanh": nn.Hardtanh(-0.5, 0.5),
    "softplus": nn.Softplus(2.0),
    "sigmoid": torch.sigmoid,
    "tanh method": lambda x: x.tanh(),
    "clamp": lambda x: x.clamp(-0.5, max=0.5),
    "exp and log": lambda x: x.exp().log(),
    "pow": lambda x: x.pow(2),
    "dropout": nn.Dropout(0.5).eval(),
    "contiguous": lambda x: x.contiguous(memory_format=torch.channels_last).clone(),
    "to": lambda x: x.float().to(torch.float64),
    "plus scalar": lambda x: x + 1.5,
    "scalar plus": lambda x: 1.5 + x,
    "minus scalar": lambda x: x - 1.5,
    "scalar minus": lambda x: 1.5 - x,
    "negative": lambda x: -x,
    "times scalar": lambda x: 2 * x * 3,
    "divided": lambda x: x / 3,
    "zero-dimensional": lambda x: x + torch.tensor(2.0),
    "per channel": lambda x: x * OTHER + OTHER[0],
    "per channel first": lambda x: OTHER - OTHER * x,
    "divided into per channel": lambda x: OTHER / (x.abs() + 1),
    "per image": lambda x: (x - EACH) / EACH,
    "per image first": lambda x: EACH * x,
    "residual": lambda x: torch.add(x.relu(), x, alpha=0.5),
    "maximum": lambda x: torch.maximum(x, -x),
    "cat": lambda x: torch.cat([x, x.relu(), -x], 1),
    "cat negative dim": lambda x: torch.cat((x, x), dim=-3),
    "softmax": lambda x: x.softmax(1),
    "log_softmax": lambda x: F.log_softmax(x, dim=-3),
    "chunk": lambda x: x.chunk(2, 1)[1],
    "split": lambda x: torch.split(x, [1, 3], dim=1)[1],
    "split method": lambda x: x.split(2, dim=1)[0],
    "sum": lambda x: x.sum(1, keepdim=True),
    "amax": lambda x: x.amax(dim=1, keepdim=True),
    "mean over channels": lambda x: x.mean(1, keepdim=True),
    "channels": lambda x: x[:, 1:3],
    "channels and all": lambda x: x[:, 1:, ...],
    "every second channel": lambda x: x[:, ::2, :, :],
    "all": lambda x: x[...],
    "crop to itself": lambda x: x[..., : x.shape[2], : x.shape[3]],
    "crop past an ellipsis": lambda x: x[:, ..., : x.shape[3]],
    "size": lambda x: x * x.size(1) * x.size()[3] * x.ndim * x.dim(),
    "module list": nn.Sequential(nn.Identity(), nn.ReLU(), nn.Dropout2d()).eval(),
}


@pytest.mark.parametrize("name", SAMPLE_BY_SAMPLE)
def test_sample_by_sample(name: str) -> None:
    assert_equals_dense(SAMPLE_BY_SAMPLE[name], image())


def iadd(x: Any) -> Any:
    x += 1
    x *= 2
    x -= 0.5
    x /= 4
    return x


@pytest.mark.parametrize(
    "run",
    [
        *(layer(inplace=True) for layer in (nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.Hardsigmoid)),
        *(layer(inplace=True) for layer in (nn.Hardtanh, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.Mish)),
        nn.Dropout(0.5, inplace=True).eval(),
        torch.relu_,
        F.hardtanh_,
        lambda x: x.relu_().mul_(2).add_(1).sub_(0.1).div_(2).clamp_(0, 1),
        lambda x: x.sigmoid_().neg_().exp_().tanh_(),
        iadd,
    ],
)
def test_in_place_forms_leave_their_input_untouched(run: Run) -> None:
    x = image((16, 16))
    tiles = split(x, Plan.uniform(2, (16, 16), 8))
    before = tiles.tiles.clone()
    found = run(tiles)
    assert torch.equal(tiles.tiles, before)
    torch.testing.assert_close(found.dense(), run(x.clone()))


def test_arithmetic_of_a_map_with_itself_in_place() -> None:
    def run(x: Any) -> Any:
        y = x * 1
        y += x
        return y

    assert_equals_dense(run, image())
