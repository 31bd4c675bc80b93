"""Which algorithm computes a convolution: by a measurement on this machine, else by what is expected.

A case is the geometry of the layer, the kind of its map and the number of threads, so that networks share
what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from foveal.geometry.layout import Layout
from foveal.kernels.autotune import Autotuner, is_tuning
from foveal.kernels.build import loaded
from foveal.ops.convolve import onednn
from foveal.ops.convolve.spec import Convolution

ALGORITHMS = ("direct", "winograd2", "winograd4", "onednn")
"""What can be chosen from. `onednn` is PyTorch's own convolution."""

SQUARES = {"winograd2": 2, "winograd4": 4}

AUTOTUNER = Autotuner("convolve", ALGORITHMS)
"""What was measured on this machine."""

SPEED, BANDWIDTH = 60e9, 8e9
"""What a core is expected to do [MAC/s], and memory to deliver [B/s], where nothing was measured."""


def algorithms(c: Convolution) -> tuple[str, ...]:
    """Name the algorithms that can compute a convolution."""
    lanes = loaded().foveal_outputs() // 2
    small = c.kernel == (3, 3) and c.stride == c.dilation == c.groups == 1
    whole = c.weight.shape[0] % lanes == c.weight.shape[1] % lanes == 0
    clamped = c.prologue is not None and not c.prologue.linear
    squares = ("winograd2", "winograd4") if small and whole and not clamped else ()
    return ("direct", *squares, *(("onednn",) if _symmetric(c) and onednn.possible(c) else ()))


def _symmetric(c: Convolution) -> bool:
    """Whether there is as much padding behind the map as before it."""
    return all(2 * p == c.dilation * (k - 1) for p, k in zip(c.padding, c.kernel, strict=True))


def choose(x: Tensor, layout: Layout | None, c: Convolution, run: Callable[[str], Any]) -> str:
    """Name the algorithm for a map; while tuning, run those that are possible and take the fastest."""
    if is_tuning():
        return AUTOTUNER.measure(describe(x, layout, c), algorithms(c), run)
    bits = (x.shape[0] * x.shape[2] * x.shape[3]).bit_length()
    kind = len(AUTOTUNER), bits, x.shape[2:], layout is None, torch.get_num_threads()
    return c.prepared(("algorithm", kind), lambda: _known(x, layout, c))


def _known(x: Tensor, layout: Layout | None, c: Convolution) -> str:
    """Name the algorithm that was measured, or else is expected, to be fastest."""
    found = AUTOTUNER.get(describe(x, layout, c))
    return found if found is not None and found in algorithms(c) else expected(c, x, layout)


def describe(x: Tensor, layout: Layout | None, c: Convolution) -> str:
    """Name a layer's geometry and the kind of its map: side of tiles (0 if dense), size in powers of 2."""
    rows, columns = c.kernel
    outputs, channels = c.weight.shape[:2]
    side = 0 if layout is None else x.shape[2]
    size = (len(x) * x.shape[2] * x.shape[3]).bit_length()
    around = f"{' prologue' * (c.prologue is not None)} to {c.low:g}..{c.high:g}"
    return (
        f"{channels}x{c.groups}>{outputs} {rows}x{columns}/{c.stride}*{c.dilation} "
        f"from {c.padding[0]},{c.padding[1]}{around} "
        f"side {side} size {size} threads {torch.get_num_threads()}"
    )


def expected(c: Convolution, x: Tensor, layout: Layout | None) -> str:
    """Choose by multiplications, those for squares that hang over included, and by the weights to read."""
    outputs, channels = c.weight.shape[:2]
    sides = [-(-side // c.stride) for side in x.shape[2:]]
    rate = SPEED * torch.get_num_threads()
    times = {}
    for name in set(algorithms(c)) - {"onednn"}:
        m = SQUARES.get(name, 1)
        taps = (m + 2) ** 2 if name in SQUARES else math.prod(c.kernel)
        places = len(x) * math.prod(-(-side // m) for side in sides)
        slower = 1.5 if name in SQUARES else 1.0
        weights = taps * channels * outputs
        times[name] = slower * places * weights / rate + 4 * weights / BANDWIDTH
    return min(sorted(times), key=lambda name: times[name])
