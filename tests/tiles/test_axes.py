"""Permuting, reshaping and what runs along channels: samples stay whole, so tiles need not know."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.nn import functional as F

from both_laws import Run, assert_both_laws, assert_runs_on_mixed_plans, random_map, shapes
from foveal.geometry.plan import Plan
from foveal.tiles import NoTileRule, TileTensor, run_dense, split
from foveal.tiles.axes import MixesSamples, as_seen, as_stored, reshape
from strategies import sources

EXTENT = {"n": 2, "h": 3, "w": 5}


class ChannelsLast(nn.Module):
    """The block of ConvNeXt."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 3 * channels), nn.GELU(), nn.Linear(3 * channels, channels)
        )
        self.scale = nn.Parameter(torch.rand(channels))

    def forward(self, x: Any) -> Any:
        y = self.mlp(self.norm(self.conv(x).permute(0, 2, 3, 1)))
        return x + (self.scale * y).permute(0, 3, 1, 2)


class Sequence(nn.Module):
    """A transformer's block without attention: a sequence of samples, and a convolution on their map."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(4), nn.Linear(4, 4)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Any) -> Any:
        batch, channels, height, width = x.shape
        rows = x.flatten(2).transpose(1, 2)
        rows = rows + self.mix(self.norm(rows))
        return self.conv(rows.transpose(1, 2).view(batch, channels, height, width).contiguous())


class LayerNorm2d(nn.LayerNorm):
    def forward(self, x: Any) -> Any:
        y = x.permute(0, 2, 3, 1)
        return F.layer_norm(y, self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


def shuffle(x: Any) -> Any:
    batch, channels, height, width = x.shape
    return (
        x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)
    )


def by_hand(x: Any) -> Any:
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).pow(2).mean(1, keepdim=True)
    return (x - mean) / (variance + 1e-6).sqrt()


WEIGHT = torch.randn(4, 4, dtype=torch.float64)
EACH = torch.randn(2, 1, 4, dtype=torch.float64)
PER_SAMPLE: dict[str, Run] = {
    "block of ConvNeXt": ChannelsLast().double(),
    "sequence": Sequence().double(),
    "norm over channels": LayerNorm2d(4).double(),
    "norm by hand": by_hand,
    "shuffle": shuffle,
    "shuffle module": nn.ChannelShuffle(2),
    "movedim": lambda x: x.movedim(1, -1).exp().movedim(-1, 1),
    "moveaxis of several": lambda x: x.moveaxis((2, 3), (0, 1)).exp().moveaxis((0, 1), (-2, -1)),
    "swapaxes": lambda x: x.swapaxes(1, 3).tanh().transpose(-1, -3),
    "rows and columns": lambda x: x.transpose(2, 3).tanh().transpose(2, 3),
    "all samples": lambda x: (
        F.linear(x.permute(0, 2, 3, 1).reshape(-1, 4), WEIGHT)
        .view(x.shape[0], *x.shape[2:], 4)
        .permute(0, 3, 1, 2)
    ),
    "flatten and unflatten": lambda x: x.flatten(2).relu().unflatten(2, x.shape[2:]),
    "unflatten channels": lambda x: x.unflatten(1, (2, -1)).amax(1),
    "glu": lambda x: F.glu(x, 1),
    "glu last": lambda x: F.glu(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
    "gate": lambda x: (lambda a, b: a * b)(*x.permute(0, 2, 3, 1).chunk(2, -1)).permute(0, 3, 1, 2),
    "softmax in groups": lambda x: x.view(x.shape[0], 2, 2, *x.shape[2:]).softmax(1).flatten(1, 2),
    "unbind and stack": lambda x: torch.stack(x.unbind(1)[::-1], 1),
    "squeeze": lambda x: x[:, :1].squeeze(1).exp().unsqueeze(1),
    "one channel by number": lambda x: x[:, 2].unsqueeze(1) * x,
    "drop and take again": lambda x: x.sum(1).unsqueeze(1),
    "matmul": lambda x: (x.permute(0, 2, 3, 1) @ WEIGHT).permute(0, 3, 1, 2),
    "per image in a sequence": lambda x: (x.flatten(2).transpose(1, 2) * EACH).transpose(1, 2).view(x.shape),
    "mean in another order": lambda x: x.permute(0, 2, 3, 1).mean((1, 2)),
    "mean of a sequence": lambda x: x.flatten(2).mean(2, keepdim=True),
    "cat last": lambda x: torch.cat([x.permute(0, 2, 3, 1)] * 2, -1).permute(0, 3, 1, 2),
    "batch norm of a sequence": lambda x: F.batch_norm(x.flatten(2), WEIGHT[0], WEIGHT[1] ** 2).view(x.shape),
    "var over channels": lambda x: x.var(1, keepdim=True),
    "positions": lambda x: x + torch.linspace(0, 1, x.shape[3], dtype=torch.float64),
}


@torch.no_grad()
@pytest.mark.parametrize("name", PER_SAMPLE)
@pytest.mark.parametrize("size", [(16, 24), (13, 21), (9, 32)])
def test_what_does_not_mix_samples_keeps_both_laws(name: str, size: tuple[int, int]) -> None:
    assert_both_laws(PER_SAMPLE[name], random_map(size))


@torch.no_grad()
@settings(max_examples=15)
@given(source=sources())
@pytest.mark.parametrize("name", ["block of ConvNeXt", "sequence", "shuffle", "all samples", "glu last"])
def test_random_plans_run_and_keep_images_apart(name: str, source: Random) -> None:
    run, x = PER_SAMPLE[name], random_map(shapes(source))
    assert_both_laws(run, x)
    assert_runs_on_mixed_plans(run, x, source)


def test_a_sequence_of_tiles_has_the_shape_of_the_sequence() -> None:
    x = split(random_map((13, 21)), Plan.uniform(2, (13, 21), 8))
    rows = x.flatten(2).transpose(1, 2)
    assert (rows.shape, rows.ndim, rows.numel()) == ((2, 273, 4), 3, 2 * 273 * 4)
    assert x.permute(0, 2, 3, 1).shape == (2, 13, 21, 4)


class SelfAttention(nn.Module):
    """Attention of a transformer, on a sequence, with the sides of its map beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(4, 4, 2, 2)

    def forward(self, rows: Tensor, height: int, width: int) -> Tensor:
        assert not isinstance(rows, TileTensor)
        small = self.reduce(rows.transpose(1, 2).reshape(len(rows), 4, height, width)).flatten(2)
        return (rows @ small).softmax(-1) @ small.transpose(1, 2)


@torch.no_grad()
def test_a_dense_module_takes_and_gives_a_sequence() -> None:
    attention = run_dense(SelfAttention().double())

    def run(x: Any) -> Any:
        rows = x.flatten(2).transpose(1, 2)
        rows = rows + attention(rows, x.shape[2], x.shape[3])
        return rows.transpose(1, 2).reshape(x.shape)

    assert_both_laws(run, random_map((16, 24)))
    assert_runs_on_mixed_plans(run, random_map((16, 24)), Random(0))


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (
            lambda x: x.view(2, -1),
            r"view of axes \(N, C, H, W\) to \(2, -1\), where one axis would hold channels and",
        ),
        (lambda x: x.permute(0, 2, 3, 1).reshape(2, 4, 4, 3, 8, 4), "hold a part of the rows or columns"),
        (lambda x: x.permute(0, 2, 3, 1) + x, r"add of maps with axes \(N, C, H, W\) and \(N, H, W, C\)"),
        (lambda x: F.conv2d(x.transpose(1, 2), torch.ones(1, 8, 1, 1)), r"whose axes are \(N, H, C, W\)"),
        (lambda x: F.max_pool2d(x.permute(0, 2, 3, 1), 2), r"whose axes are \(N, H, W, C\)"),
        (lambda x: x.flatten(2).dense(), r"composing a map whose axes are \(N, C, H·W\)"),
        (lambda x: F.linear(x, torch.ones(2, 24)), r"linear along the last of the axes \(N, C, H, W\)"),
        (lambda x: x.flatten(2).softmax(-1), "softmax along another dimension than the channels"),
        (lambda x: x.flatten(2) @ x.flatten(2).transpose(1, 2), "matmul of two maps, which mixes samples"),
        (lambda x: x.unbind(0), "unbind along another dimension than the channels"),
        (lambda x: x.squeeze(), "squeeze without a dimension"),
        (lambda x: x.squeeze(0), "squeeze of another dimension than the channels"),
        (lambda x: x.view(torch.float32), "view as another type"),
        (lambda x: torch.stack([x, torch.ones(2, 4, 16, 24)], 1), "stack of tiles with plain tensors"),
    ],
)
def test_what_mixes_samples_is_refused(run: Run, message: str) -> None:
    with pytest.raises(NoTileRule, match=message):
        run(split(random_map((16, 24)), Plan.uniform(2, (16, 24), 8)))


@pytest.mark.parametrize(
    ("axes", "channels", "target", "expected"),
    [
        (("n", "c", "h", "w"), [4], [2, 4, 15], (("n", "c", "hw"), [4])),
        (("n", "h", "w", "c"), [4], [-1, 4], (("nhw", "c"), [4])),
        (("nhw", "c"), [4], [2, 3, 5, 2, 2], (("n", "h", "w", "c", "c"), [2, 2])),
        (("n", "c", "h", "w"), [1], [2, 3, 5], (("n", "h", "w"), [])),
        (("n", "h", "w"), [], [2, 1, 3, 5], (("n", "c", "h", "w"), [1])),
        (("n", "c", "hw"), [4], [2, 1, 4, 3, 5], (("n", "c", "c", "h", "w"), [1, 4])),
    ],
)
def test_axes_after_a_reshaping(axes: Any, channels: Any, target: Any, expected: Any) -> None:
    assert reshape(axes, channels, EXTENT, target) == expected


@pytest.mark.parametrize(
    ("axes", "target"),
    [(("n", "c", "h", "w"), [8, 15]), (("n", "c", "hw"), [2, 4, 5, 3]), (("n", "h", "w", "c"), [2, 3, 20])],
)
def test_axes_that_would_mix_samples(axes: Any, target: list[int]) -> None:
    with pytest.raises(MixesSamples):
        reshape(axes, [4], EXTENT, target)


def test_images_of_one_sample_keep_their_axes() -> None:
    one = {"n": 1, "h": 1, "w": 1}
    assert reshape(("n", "c", "h", "w"), [4], one, [1, 4, 1]) == (("n", "c", "hw"), [4])
    with pytest.raises(MixesSamples, match="samples would be lost"):
        reshape(("n", "c", "h", "w"), [4], one, [1, 4])


def test_maps_are_shown_in_the_order_of_their_axes_and_back() -> None:
    x = torch.randn(2, 4, 6, 3, 5)
    for axes in [("n", "hw", "c", "c"), ("c", "nhw", "c"), ("w", "c", "n", "c", "h")]:
        assert torch.equal(as_stored(as_seen(x, axes), axes, EXTENT), x)
    assert as_seen(x, ("n", "hw", "c", "c")).shape == (2, 15, 4, 6)
