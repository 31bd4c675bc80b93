"""Budgets of networks with modules that see the whole map: what those take no plan saves, so it counts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from foveal.calibration.engine import Engine
from foveal.calibration.latency import Setup, on_tiles, picture
from foveal.cost import count_macs
from foveal.methods import AdaptiveSegmenter
from foveal.program import Program
from foveal.program.spec import BINS, CONVOLVE, DEPTHWISE, ENLARGE, RESAMPLE, TILED, WHOLE
from foveal.storage.reading import shorten

TOLERANCE = 0.01
"""How far below a budget counted MACs may lie, as a share of it; or the work of one tile, if that is more."""
USED = 0.5
"""Share of a budget that a plan must use: one that uses less leaves images coarse, and is refused."""
ROUNDS = 8
"""Halvings of what is not known yet."""
GRAIN = 0.02
"""Share of a program's multiplications on whole maps up to which budgets are not corrected."""


def budget_on_tiles(setup: Setup, size: tuple[int, int]) -> float:
    """Return the share of the work that tiles may take, so that all of the network keeps the budget.

    It is counted on a generated picture. A program whose whole maps take little needs no correction: that
    is within the grain of a tile.

    Args:
        setup: What runs, with the budget that is asked for.
        size: Height and width of the image [px].

    Raises:
        ValueError: No plan comes near the budget; the message says which budgets plans keep.
    """
    engine, asked = setup.engine, setup.config.budget
    if not _counts(engine) or not setup.adjustable or setup.is_dense(size):
        return asked
    image = engine.sent(picture(size, engine.channels))
    dense = _count(engine.dense(), image, setup.name)

    def share(budget: float) -> float:
        return _count(setup.make(budget), image, setup.name) / dense

    near = max(TOLERANCE * asked, setup.tile**2 / math.prod(size))
    low, high = setup.least_work(size), setup.share(size)
    spent, above = share(low), high
    if low > asked:
        return asked  # refused by the policy, in its words
    if spent > asked:
        raise ValueError(f"{_taken(setup, size)}, so that plans take {_up(spent)} or more; give that")
    middle = max(low, asked)
    for _ in range(ROUNDS):
        found = share(middle)
        if found <= asked:
            low, spent = middle, found
        else:
            high, above = middle, found
        if asked - spent <= near:
            return low
        middle = (low + high) / 2
    if spent >= USED * asked:
        return low
    raise ValueError(
        f"{_taken(setup, size)}, so that plans take {_up(spent)} or less, or {_up(above)} or more; give one "
        "of these"
    )


def _counts(engine: Engine) -> bool:
    """Whether modules that see the whole map take a share of the work that a budget must count."""
    seen = getattr(engine.model.network, "dense_modules", ())
    return bool(seen) and (engine.program is None or _whole_share(engine.program) > GRAIN)


def _whole_share(program: Program) -> float:
    """Count the share of a dense run's multiplications that steps on whole maps take."""
    maps, found = program.tables.maps, {WHOLE: 0.0, TILED: 0.0, BINS: 0.0}
    for step in program.tables.steps:
        given, out = maps[step.input], maps[step.out]
        side = (out.up / out.down if out.down else 1) / out.stride
        if step.kind in (CONVOLVE, DEPTHWISE, RESAMPLE, ENLARGE):
            within = given.channels / step.factor if step.kind == CONVOLVE else 1
            taps = 4 if step.kind in (RESAMPLE, ENLARGE) else step.rows * step.columns
            found[out.kind] += taps * within * out.channels * side**2
    return found[WHOLE] / max(found[WHOLE] + found[TILED], 1e-9)


def _taken(setup: Setup, size: tuple[int, int]) -> str:
    """Say what was asked for, and which modules stand against it."""
    names = ", ".join(getattr(setup.engine.model.network, "dense_modules", ()))
    return (
        f"budget is {setup.config.budget:g}, and at {size[0]}x{size[1]} px {setup.name} must see the whole "
        f"map in {shorten(names, 120)}"
    )


def _up(share: float) -> str:
    """Show a share, rounded up so that it can be asked for."""
    return f"{math.ceil(100 * share) / 100:.2f}"


def _count(method: AdaptiveSegmenter, image: Tensor, name: str) -> int:
    with on_tiles(name), torch.no_grad():
        return count_macs(lambda: method(image).labels).total
