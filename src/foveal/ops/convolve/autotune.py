"""Which algorithm computes a convolution: by a measurement on this machine, else by what is expected.

Measured choices are kept per geometry of the layer, kind of map and number of threads, in the folder of
things that are done once per machine, and shared by all networks.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foveal.geometry.layout import Layout
from foveal.kernels.build import built, folder, loaded
from foveal.ops.convolve import onednn
from foveal.ops.convolve.spec import Convolution

ALGORITHMS = ("direct", "winograd2", "winograd4", "onednn")
"""What can be chosen from. `onednn` is PyTorch's own convolution."""

SQUARES = {"winograd2": 2, "winograd4": 4}

_TUNING: ContextVar[bool] = ContextVar("tuning", default=False)
ROUNDS = 3
SPEED, BANDWIDTH = 60e9, 8e9
"""What a core is expected to do [MAC/s], and memory to deliver [B/s], where nothing was measured."""


def algorithms(c: Convolution) -> tuple[str, ...]:
    """Name the algorithms that can compute a convolution."""
    lanes = loaded().foveal_outputs() // 2
    small = c.kernel == (3, 3) and c.stride == c.dilation == c.groups == 1
    whole = c.weight.shape[0] % lanes == c.weight.shape[1] % lanes == 0
    clamped = c.before is not None and not c.before.linear
    squares = ("winograd2", "winograd4") if small and whole and not clamped else ()
    return ("direct", *squares, *(("onednn",) if _symmetric(c) and onednn.possible(c) else ()))


def _symmetric(c: Convolution) -> bool:
    """Whether there is as much padding behind the map as before it."""
    return all(2 * p == c.dilation * (k - 1) for p, k in zip(c.padding, c.kernel, strict=True))


def choose(x: Tensor, layout: Layout | None, c: Convolution, run: Callable[[str], Any]) -> str:
    """Name the algorithm for a map; while tuning, run those that are possible and take the fastest."""
    if not _TUNING.get():
        bits = (x.shape[0] * x.shape[2] * x.shape[3]).bit_length()
        known = len(choices()), bits, x.shape[2:], layout is None, torch.get_num_threads()
        if known not in c._chosen:
            found = choices().get(describe(x, layout, c))
            c._chosen[known] = found if found in algorithms(c) else expected(c, x, layout)
        return c._chosen[known]
    key = describe(x, layout, c)
    if choices().get(key) not in algorithms(c):
        choices()[key] = _fastest(algorithms(c), run)
    return choices()[key]


def describe(x: Tensor, layout: Layout | None, c: Convolution) -> str:
    """Name a layer's geometry and the kind of its map: side of tiles (0 if dense), size in powers of 2."""
    rows, columns = c.kernel
    outputs, channels = c.weight.shape[:2]
    side = 0 if layout is None else x.shape[2]
    size = (len(x) * x.shape[2] * x.shape[3]).bit_length()
    around = f"{' before' * (c.before is not None)} to {c.low:g}..{c.high:g}"
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


@contextmanager
def tuning() -> Iterator[None]:
    """Measure every kind of convolution that runs inside and was not measured before; keep the choices."""
    token = _TUNING.set(True)
    before = dict(choices())
    try:
        yield
    finally:
        _TUNING.reset(token)
        if choices() != before:
            _save()


@cache
def choices() -> dict[str, str]:
    """Return what was measured, by `describe`; read from disk once."""
    try:
        found = json.loads(_file().read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: name for key, name in found.items() if name in ALGORITHMS}


def _fastest(names: tuple[str, ...], run: Callable[[str], Any]) -> str:
    """Time with cold caches: in a network, other layers run between two calls of one."""
    best = dict.fromkeys(names, math.inf)
    other = torch.ones(1 << 23)
    for _ in range(ROUNDS):
        for name in names:
            other.sum()
            start = time.perf_counter()
            run(name)
            best[name] = min(best[name], time.perf_counter() - start)
    return min(names, key=lambda name: best[name])


def _file() -> Path:
    return folder() / f"choices-{built()}.json"


def _save() -> None:
    """Write the choices; a folder that cannot be written is no error, they are then measured again."""
    path = _file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}")
        scratch.write_text(json.dumps(choices(), indent=1))
        scratch.replace(path)
    except OSError:
        return
