"""Budgets of all that a network takes: what no plan saves, as modules that see the whole map, counts."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from foveal.calibration.engine import Engine
from foveal.calibration.latency import Setup, on_tiles, picture
from foveal.cost import count_macs
from foveal.methods import METHODS, Prediction
from foveal.program import Program
from foveal.program.spec import BINS, CONVOLVE, DEPTHWISE, ENLARGE, RESAMPLE, TILED, WHOLE
from foveal.storage.reading import shorten

TOLERANCE, NEAR = 0.01, 0.02
"""How far counted MACs may lie below a budget, as a share of it, for a search to end, and for it to count as
kept; or the work of one tile, if that is more."""
TILES = 8
"""Tiles on the side of the picture on which a network is first seen to take more than its tiles, or not."""
ROUNDS = 8
"""Halvings of what is not known yet."""
GRAIN = 0.02
"""Share of a program's multiplications on whole maps up to which budgets are not corrected."""


def budget_on_tiles(setup: Setup, size: tuple[int, int]) -> float:
    """Return the share of the work that tiles may take, so that all of the network keeps the budget.

    It is counted on a generated picture. What a network without modules that see the whole map takes beside
    its tiles (pooled maps, the enlargement of the logits) does not depend on the plan. Where it is little on
    a small picture it is let be: that is within the grain of a tile.

    Args:
        setup: What runs, with the budget that is asked for.
        size: Height and width of the image [px].

    Raises:
        ValueError: No plan comes near the budget; the message says which budgets plans keep.
    """
    engine, asked = setup.engine, setup.config.budget
    if not setup.adjustable or setup.is_dense(size) or setup.least_work(size) > asked:
        return asked  # nothing to choose, or refused by the policy, in its words
    if not _counts(engine):
        return _beside(setup, size)
    image = engine.sent(picture(size, engine.channels))
    dense = _count(engine.dense(), image, setup.name)

    def share(budget: float) -> float:
        return _count(setup.make(budget), image, setup.name) / dense

    tile = setup.tile**2 / math.prod(size)
    near, kept = max(TOLERANCE * asked, tile), max(NEAR * asked, tile)
    low, high = setup.least_work(size), setup.share(size)
    spent, above = share(low), high
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
    if asked - spent <= kept:
        return low
    raise ValueError(
        f"{_taken(setup, size)}, so that plans take {_up(spent)} or less, or {_up(above)} or more; give one "
        "of these"
    )


def _beside(setup: Setup, size: tuple[int, int]) -> float:
    """Return the budget without what the network takes beside its tiles.

    Raises:
        ValueError: Nothing is left for the cheapest plan; the message says which budget is enough.
    """
    asked, small = setup.config.budget, (TILES * setup.tile, TILES * setup.tile)
    if METHODS[setup.method].decides_for != "tile":
        return asked
    if math.prod(small) < math.prod(size) and setup.least_work(small) <= asked:
        if _excess(setup, small) <= TOLERANCE * asked:
            return asked
    excess, least = _excess(setup, size), setup.least_work(size)
    if excess <= TOLERANCE * asked:
        return asked
    if least + excess > asked:
        raise ValueError(
            f"budget is {asked:g}, and at {size[0]}x{size[1]} px {setup.name} takes {excess:.2g} of the "
            f"dense work beside its tiles, so that plans take {_up(least + excess)} or more; give that"
        )
    return asked - excess


def _excess(setup: Setup, size: tuple[int, int]) -> float:
    """Count the share of the dense MACs that a method takes beyond the work of its tiles."""
    image, found = setup.engine.sent(picture(size, setup.engine.channels)), list[Prediction]()
    method = setup.make(setup.config.budget)

    def run(image: Tensor) -> Prediction:
        found.append(method(image))
        return found[0]

    taken = _count(run, image, setup.name)
    work = float(found[0].trace.work[0])
    dense = _count(setup.engine.dense(), image, setup.name)
    return taken / dense - work if work < setup.share(size) else 0.0


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


def _count(method: Callable[[Tensor], Prediction], image: Tensor, name: str) -> int:
    with on_tiles(name), torch.no_grad():
        return count_macs(lambda: method(image).labels).total
