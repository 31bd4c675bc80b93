"""Networks of everything that may stand around a convolution: written for a test, or random."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks import Residual, SqueezeExcitation

Act = Callable[[Any], Any]
ACTIVATIONS: tuple[Act, ...] = (
    F.relu,
    F.relu6,
    torch.relu,
    lambda x: x.relu(),
    lambda x: F.relu(input=x),
    lambda x: x.clamp(-0.5, 0.5),
    lambda x: F.hardtanh(x, -0.5, 0.5),
    torch.sigmoid,
)
SUMS: tuple[Callable[[Any, Any], Any], ...] = (
    lambda x, y: x + y,
    torch.add,
    lambda x, y: x.add(y),
    lambda x, y: torch.add(x, y, alpha=0.5),
    lambda x, y: x - y,
    lambda x, y: x * y.sigmoid(),
)
CHANGES: tuple[Act, ...] = (
    lambda x: x * 1.3,
    lambda x: 0.7 * x,
    lambda x: x - 0.4,
    lambda x: x + 1,
    lambda x: 1 - x,
    lambda x: x / 1.5,
    lambda x: -x,
)
OVERWRITES: tuple[Act, ...] = (
    lambda x: x.relu_(),
    lambda x: F.relu(x, inplace=True),
    lambda x: x.mul_(1.2),
    lambda x: x.add_(0.3),
)


class Tangle(nn.Module):
    """Steps that each take earlier values, mostly the last one, and add one of the same shape.

    Args:
        source: Of random numbers.
        channels: Of every value.
        steps: How many.
        overwriting: Whether steps may overwrite what they take.
    """

    def __init__(self, source: Random, channels: int, steps: int, overwriting: bool = False) -> None:
        super().__init__()
        self.overwriting = overwriting
        self.layers = nn.ModuleList()
        self.register_buffer("shift", torch.rand(1, channels, 1, 1))
        self.register_buffer("scale", torch.rand(1, channels, 1, 1) + 0.5)
        kinds = (
            ["conv"] * 5 + ["norm"] * 4 + ["layer"] * 3 + ["sum"] * 4 + ["act", "change", "numbers", "again"]
        )
        self.steps: list[tuple[Any, int, int]] = []
        for step in range(steps):
            first, second = (step if source.random() < 0.75 else source.randint(0, step) for _ in range(2))
            kind = source.choice(kinds + ["overwrite"] * overwriting)
            self.steps.append((self._make(source, kind, channels), first, second))

    def _make(self, source: Random, kind: str, channels: int) -> Any:
        if kind == "sum":
            return source.choice(SUMS)
        if kind in ("act", "change", "overwrite"):
            return source.choice({"act": ACTIVATIONS, "change": CHANGES, "overwrite": OVERWRITES}[kind])
        if kind == "numbers":
            return source.choice(["shift", "scale", "mean"])
        if kind != "again" or not len(self.layers):
            self.layers.append(_layer(source, kind, channels, self.overwriting))
        return source.choice([len(self.layers) - 1, source.randrange(len(self.layers))])

    def forward(self, x: Any) -> Any:
        values = [x]
        for what, first, second in self.steps:
            one, other = values[first], values[second]
            if isinstance(what, int):
                value = self.layers[what](one)
            elif what == "mean":
                value = one + F.adaptive_avg_pool2d(other, 1)
            elif isinstance(what, str):
                value = one - self.shift if what == "shift" else one / self.scale
            else:
                value = what(one, other) if what in SUMS else what(one)
            values.append(value)
        return values[-1]


def _layer(source: Random, kind: str, channels: int, overwriting: bool) -> nn.Module:
    if kind == "norm":
        return nn.BatchNorm2d(channels)
    if kind == "conv":
        return _convolution(source, channels)
    inplace = overwriting and source.random() < 0.3
    choices: list[nn.Module] = [nn.ReLU(inplace), nn.ReLU6(inplace), nn.Hardtanh(-0.6, 0.8), nn.Hardswish()]
    return source.choice([*choices, nn.Dropout(), nn.Identity(), nn.Dropout2d()])


def _convolution(source: Random, channels: int) -> nn.Module:
    kernel, dilation = source.choice([1, 3, 3, 3, 5]), source.choice([1, 1, 2])
    layer = nn.Conv2d(
        channels,
        channels,
        kernel,
        padding=source.choice([dilation * (kernel // 2), "same"]),
        dilation=dilation,
        groups=source.choice([1, 1, 2, channels]),
        bias=source.random() < 0.5,
    )
    return source.choice([layer, layer, layer, Residual(layer), SqueezeExcitation(channels)])


class TangledNetwork(nn.Module):
    """Tangles at strides 2 and 4, with a strided shortcut between, and a decoder at stride 2."""

    def __init__(self, source: Random, overwriting: bool = False) -> None:
        super().__init__()
        kernel, few = source.choice([3, 5, 7]), source.choice([4, 4, 16])
        many = 2 * few
        self.stem = nn.Conv2d(3, few, kernel, 2, kernel // 2)
        self.fine = Tangle(source, few, source.randint(1, 8), overwriting)
        self.down = nn.Conv2d(few, many, 3, 2, 1, groups=source.choice([1, 4]))
        self.short = nn.Sequential(nn.Conv2d(few, many, 1, 2, bias=False), nn.BatchNorm2d(many))
        self.coarse = Tangle(source, many, source.randint(1, 12), overwriting)
        self.classify = nn.Conv2d(few + many, 3, source.choice([1, 3]), padding="same")

    def forward(self, x: Any) -> Any:
        fine = self.fine(self.stem(x))
        coarse = self.coarse(F.relu(self.down(fine) + self.short(fine)))
        large = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
        return self.classify(torch.cat([fine, large[:, :, : fine.shape[2], : fine.shape[3]]], 1))


class Net(nn.Module):
    """A network that is a function of its layers and its input."""

    def __init__(self, run: Callable[..., Any], **layers: Any) -> None:
        super().__init__()
        for name, value in layers.items():
            self.register_buffer(name, value) if isinstance(value, Tensor) else setattr(self, name, value)
        self._run = run

    def forward(self, x: Any) -> Any:
        return self._run(self, x)


def conv(incoming: int, outgoing: int, kernel: int = 3, stride: int = 1, **settings: Any) -> nn.Conv2d:
    return nn.Conv2d(incoming, outgoing, kernel, stride, **{"padding": kernel // 2, **settings})


def image_for(source: Random, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
    numbers = torch.Generator().manual_seed(source.randint(0, 2**31))
    return torch.rand(source.randint(1, 2), 3, *size, generator=numbers, dtype=torch.float64).to(dtype)


NEAR = {torch.float32: 1e-4, torch.float64: 1e-10}
"""Largest difference, as a share of the largest number."""


def assert_same(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape and found.dtype == expected.dtype
    scale = expected.abs().max().item() if expected.numel() else 0
    torch.testing.assert_close(found, expected, rtol=0, atol=NEAR[expected.dtype] * scale + 1e-30)
