"""Which settings of a network are worth trying: every scale alone, and methods at scales and levels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from foveal.calibration.configure import configure
from foveal.calibration.engine import Engine, Precision
from foveal.methods import METHODS, CoarseToFineConfig, MethodConfig
from foveal.methods.config import settings_of
from foveal.methods.scaling import Size, pixel_share

DENSE = "dense"
SCALES = (1.0, 0.75, 0.63, 0.5, 0.35)
BUDGETS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.55)
VARIED: Mapping[str, Mapping[str, tuple[object, ...]]] = {
    "coarse_to_fine": {
        "policy": ("weighted_entropy",),
        "schedule": ("levels", "direct"),
        "isolated_gain": (1.0, CoarseToFineConfig.isolated_gain),
    },
    "segblocks": {"policy": ("entropy",)},
}
"""Methods that are tried, and their settings besides levels and tile that are; no pair of networks is."""
SAME = 0.01
"""Scales that differ by less are one."""
ROOM = 1.08
"""A budget is tried where it pays for so many times the cheapest plan: with less, hardly a tile is chosen."""


@dataclass(frozen=True)
class Candidate:
    """Settings to try.

    Attributes:
        method: Name in `foveal.methods.METHODS`; "dense" is the network on the image at a scale.
        config: Settings, the budget a share of the dense work on the whole image.
        precision: What its program computes in.
    """

    method: str
    config: MethodConfig
    precision: Precision

    @property
    def shrinks_alone(self) -> bool:
        """Whether whole images run, at some scale: what all others must beat."""
        return self.method == DENSE

    @property
    def title(self) -> str:
        """Method and settings in words."""
        budget = "" if self.shrinks_alone else f"budget {self.config.budget:g}"
        return ", ".join(filter(None, [self.method, budget, self.config.title]))


@dataclass(frozen=True)
class Space:
    """What is tried.

    Attributes:
        budgets: Shares of the dense work.
        scales: Of the image's sides.
        tiles: Sides of a tile [px]; what the model recommends if empty.
    """

    budgets: Sequence[float] = BUDGETS
    scales: Sequence[float] = SCALES
    tiles: Sequence[int] = ()


def list_candidates(engines: Iterable[Engine], sizes: Sequence[Size], space: Space) -> list[Candidate]:
    """List what is tried: every scale alone, also those of the budgets, and every method where it fits.

    Args:
        engines: What runs the network, one a precision.
        sizes: Heights and widths of the images [px].
        space: What is tried.
    """
    found: list[Candidate] = []
    for engine in engines:
        alone = _scales(space)
        dense = METHODS[DENSE].Config
        found += [Candidate(DENSE, dense(1.0, scale=s), engine.precision) for s in alone]
        for scale, budget in product(sorted(space.scales), sorted(space.budgets)):
            if budget < max(pixel_share(size, scale) for size in sizes):
                fitting = (c for c in _methods(engine, scale, budget, space) if _pays(engine, c, sizes))
                found += fitting
    return found


def _scales(space: Space) -> list[float]:
    """List the scales of whole images: those that are asked for, full size, and those of the budgets."""
    found = {*space.scales, 1.0}
    for share in space.budgets:
        scale = math.floor(1000 * math.sqrt(share)) / 1000
        if all(abs(scale - known) > SAME for known in found):
            found.add(scale)
    return sorted(found)


def _methods(engine: Engine, scale: float, budget: float, space: Space) -> Iterable[Candidate]:
    """List the methods at a scale and budget, with every combination of what is varied."""
    card = engine.model.card
    for method, varied in VARIED.items():
        known = settings_of(METHODS[method].Config)
        values = {"tile": tuple(space.tiles) or (card.tile,), **varied}
        values["coarse_level"] = tuple(range(1, max(1, card.coarse_level) + 1))
        values = {name: tried for name, tried in values.items() if name in known}
        seen = set()
        for chosen in product(*values.values()):
            config = configure(engine.model, method, budget, dict(zip(values, chosen, strict=True)))
            config = replace(config, scale=scale)
            key = replace(config, schedule="levels") if _one_step(config) else config  # type: ignore[call-arg]
            if key not in seen:
                seen.add(key)
                yield Candidate(method, key, engine.precision)


def _one_step(config: MethodConfig) -> bool:
    """Whether there is one finer level only, so that every schedule is the same."""
    return hasattr(config, "schedule") and config.whole("coarse_level") < 2


def _pays(engine: Engine, candidate: Candidate, sizes: Sequence[Size]) -> bool:
    """Whether a candidate can run on all images, and its budget pays for more than its cheapest plan."""
    try:
        made = engine.make(candidate.method, candidate.config)
    except ValueError:  # a method or score that has no program in this precision
        return False
    return all(ROOM * made.least_work(size) <= candidate.config.budget for size in sizes)
