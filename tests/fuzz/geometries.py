"""Geometries at random, impossible ones too: the C kernels compute what the references do, or refuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import numpy as np
import torch
from torch import Tensor

from foveal.geometry.layout import Halo, Layout
from foveal.geometry.plan import SKIP, Plan, grid
from foveal.ops import (
    Convolution,
    Pooling,
    Prologue,
    compose_tiles,
    convolve,
    cut_tiles,
    enlarge,
    fetch_halo,
    max_pool,
)
from foveal.ops.reduced import maps_native, maps_reference, native, reference
from foveal.tiles import Memory
from foveal.tiles.memory import join
from reduced_maps import assert_same, dense_map, map_of, random_convolution, random_format, random_residual
from strategies import random_plan, random_size, random_tiles

# What compares imports much when it is first called: here, not in every process that is forked.
np.testing.assert_array_equal(np.random.default_rng(0).random(1) < 1, [True])
torch.testing.assert_close(torch.zeros(1), torch.zeros(1))

CHANNELS = 1, 2, 3, 5, 8, 16, 17, 32, 40, 70


def random_layout(source: Random) -> Layout:
    """Tiles of several levels, computed now and kept from before, and places without one."""
    tile, skip = source.choice([1, 2, 4, 6, 8, 12]), source.choice([0.0, 0.3, 0.8])
    images, size = source.randint(1, 3), random_size(source, tile, 4)
    layout = random_plan(source, images, size, tile, source.randint(0, 3), skip).layout
    for _ in range(source.randint(0, 2)):
        later = random_plan(source, images, size, tile, source.randint(0, 3), skip=0.6)
        layout, _ = join(later.layout, Memory(layout.everything, ()))
    return layout


def drawn(source: Random) -> tuple[Layout, int, Tensor, Tensor | None]:
    layout = random_layout(source)
    side = source.choice([s for s in range(1, layout.tile + 1) if layout.tile % s == 0])
    tiles, kept = random_tiles(layout, side, source.choice(CHANNELS))
    return layout, side, tiles.detach(), None if kept is None else kept.detach()


def single(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.float()


def compare(run: Callable[[str], Tensor], layout: Layout | None, tolerance: float = 1e-5) -> str:
    """Compare the kernels with the reference where both compute."""
    exact, found = (attempt(run, backend) for backend in ("reference", "native"))
    if exact is None or found is None:
        return "refused"
    assert found.shape == exact.shape
    inside = None if layout is None or found.shape[2] != found.shape[3] else layout.inside(found.shape[2])
    if inside is not None and inside.shape[:1] == found.shape[:1]:
        exact, found = (x.permute(0, 2, 3, 1)[inside] for x in (exact, found))
    torch.testing.assert_close(found.double(), exact.double(), rtol=10 * tolerance, atol=tolerance)
    return "right"


def attempt(run: Callable[[str], Tensor], backend: str) -> Tensor | None:
    try:
        return run(backend)
    except ValueError as error:
        assert str(error)
        return None


def stride_for(source: Random, side: int) -> int:
    """Draw a stride that divides a side, but for one in ten."""
    return source.choice([s for s in (1, 2, 3, 4) if side % s == 0 or source.random() < 0.1])


def convolution(source: Random) -> str:
    layout, side, tiles, kept = drawn(source)
    channels = tiles.shape[1]
    kernel = source.choice([(1, 1), (3, 3), (source.randint(1, 11), source.randint(1, 11))])
    dilation, stride = source.choice([1, 1, 2, 3, 5]), stride_for(source, side)
    groups = source.choice([1, 1, channels, 2 if source.random() < 0.1 else 1])
    outputs = channels if groups > 1 else source.choice([channels, *CHANNELS])
    beyond = int(source.random() < 0.1)
    padding = tuple(source.randint(-beyond, dilation * (k - 1) + beyond) for k in kernel)
    low, high = source.choice([(-math.inf, math.inf), (0.0, math.inf), (0.0, 6.0), (-1.0, 1.0)])

    def made(kind: torch.dtype) -> Convolution:
        numbers = torch.Generator().manual_seed(source_seed)
        draw = lambda *shape: torch.randn(*shape, generator=numbers, dtype=torch.float64).to(kind)  # noqa: E731
        depth = max(channels // groups, 1)
        weight = draw(outputs, depth, *kernel) / math.sqrt(depth * kernel[0] * kernel[1])
        before = Prologue(draw(channels) + 3, draw(channels), 0.0, 6.0) if prologue else None
        return Convolution(weight, draw(outputs), stride, padding, dilation, groups, before, None, low, high)

    source_seed, prologue = source.randint(0, 2**31), source.random() < 0.3
    if source.random() < 0.3:
        dense = torch.randn(source.randint(1, 2), channels, source.randint(1, 30), source.randint(1, 30))
        return compare(
            lambda by: convolve(to(dense, by), None, made(kind_of(by)), backend=dense_name(by)), None, 1e-4
        )
    return compare(
        lambda by: convolve(to(tiles, by), layout, made(kind_of(by)), None, to_kept(kept, by), backend=by),
        layout,
        1e-4,
    )


def kind_of(backend: str) -> torch.dtype:
    return torch.float64 if backend == "reference" else torch.float32


def dense_name(backend: str) -> str:
    """PyTorch itself is the reference for a dense map."""
    return "torch" if backend == "reference" else backend


def to(x: Tensor, backend: str) -> Tensor:
    return x.to(kind_of(backend))


def to_kept(x: Tensor | None, backend: str) -> Tensor | None:
    return None if x is None else to(x, backend)


def maximum(source: Random) -> str:
    layout, side, tiles, kept = drawn(source)
    most = 12 if source.random() < 0.2 else 5
    kernel, dilation = (
        (source.randint(1, most), source.randint(1, most)),
        (source.randint(1, 3), source.randint(1, 3)),
    )
    stride = stride_for(source, side)
    reach = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    top, left = (source.randint(0, r) for r in reach)
    bottom, right = (max(0, r - p - (stride - 1)) for r, p in zip(reach, (top, left), strict=True))
    if source.random() < 0.1:
        bottom += source.randint(-1, 2)
    pooling = Pooling(kernel, (stride, stride), dilation, Halo(left, right, top, bottom, "lowest"))
    return compare(lambda by: max_pool(tiles.float(), layout, pooling, single(kept), backend=by), layout)


def enlargement(source: Random) -> str:
    layout, _, tiles, kept = drawn(source)
    factor = source.choice([0, 1, 2, 3, 4, 5, 8])
    return compare(lambda by: enlarge(to(tiles, by), layout, factor, to_kept(kept, by), backend=by), layout)


def borders(source: Random) -> str:
    layout, side, tiles, kept = drawn(source)
    widths = [source.choice([0, source.randint(0, 3 * side + 2)]) for _ in range(4)]
    halo = Halo(*widths, source.choice(["zero", "lowest", "edge"]))
    lowest = torch.finfo(torch.float32).min
    return compare(
        lambda by: fetch_halo(to(tiles, by), layout, halo, to_kept(kept, by), backend=by).clamp(min=lowest),
        None,
    )


def composition(source: Random) -> str:
    layout, side, tiles, kept = drawn(source)
    base = source.randint(0, 4)
    dense = torch.randn(layout.images, tiles.shape[1], *layout.extent(side, base))
    pool = tiles if kept is None else torch.cat([tiles, kept])
    words = {
        compare(lambda by: cut_tiles(dense, layout, side, base, backend=by), layout),
        compare(lambda by: compose_tiles(to(pool, by), layout, base, backend=by), None),
    }
    return "refused" if words == {"refused"} else "right"


def plan(source: Random) -> str:
    """Levels at random are seldom a plan; tiles of one cover every cell that is not skipped once."""
    tile, size = source.choice([1, 4, 8]), (source.randint(1, 40), source.randint(1, 40))
    levels = torch.randint(-1, source.randint(1, 4), (2, *grid(size, tile)), dtype=torch.int8)
    if source.random() < 0.6:
        levels = random_plan(source, 2, size, tile, source.randint(0, 4), 0.3).levels
    try:
        made = Plan(levels, tile, size)
    except ValueError:
        return "refused"
    covered = torch.zeros_like(levels, dtype=torch.int64)
    places = made.layout
    for n, level, row, column in zip(
        *(x.tolist() for x in (places.image, places.level, places.row, places.column)), strict=True
    ):
        square = covered[n, row : row + (1 << level), column : column + (1 << level)]
        assert (levels[n, row : row + (1 << level), column : column + (1 << level)] == level).all()
        square += 1
    assert torch.equal(covered, (levels != SKIP).long())
    return "right"


def in_reduced_precision(source: Random) -> str:
    kind, channels = source.choice(["u8", "bf16"]), source.choice(CHANNELS)
    format, deep = random_format(source, kind), source.random() < 0.4
    c = random_convolution(source, channels, format, deep)
    path = source.choice(native.paths(kind))
    if source.random() < 0.5:
        x = dense_map(
            source, source.randint(1, 3), (source.randint(1, 30), source.randint(1, 30)), channels, format
        )
    else:
        layout = random_layout(source)
        fitting = [s for s in range(c.stride, layout.tile + 1, c.stride) if layout.tile % s == 0]
        if not layout.computed or not fitting:
            return "refused"
        border = max(
            *c.padding, *(c.dilation * (k - 1) - p for k, p in zip(c.kernel, c.padding, strict=True))
        )
        x = map_of(source, layout, source.choice(fitting), border, channels, format)
    residual = random_residual(source, x, c)
    assert_same(
        native.convolve(x, c, residual, path), reference.convolve(x, c, residual), c.target, kind == "u8"
    )
    if deep:
        assert_same(maps_native.max_pool(x, c), maps_reference.max_pool(x, c), format)
    return "right"


KINDS = {
    "convolution": convolution, "maximum": maximum, "enlargement": enlargement, "borders": borders,
    "composition": composition, "plan": plan, "reduced": in_reduced_precision,
}  # fmt: skip


def case(name: str, seed: int) -> str:
    """Run one; the seed says everything."""
    torch.manual_seed(seed)
    return KINDS[name](Random(seed))
