"""What frames of a video may take: a budget of every frame, a mean over many, a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING

from foveal.cli.method_options import Settings

if TYPE_CHECKING:
    from foveal.calibration.engine import Engine
    from foveal.inference.video import MaskedFrames, Paced
    from foveal.methods import AdaptiveSegmenter

FIRST = 1.0
"""Budget of a first frame: everything is seen once, and later frames pay only for what changes."""


@dataclass(frozen=True)
class Region:
    """Where the frames of a video are wanted.

    Attributes:
        file: Image that is not 0 there.
        share: A tile is wanted if more than this share of it is.
    """

    file: str
    share: float


@dataclass(frozen=True)
class Limits:
    """What a user gives.

    Attributes:
        budget: Share of the dense work that a frame may take; None for the usual.
        long_run: Share of the dense work that frames may take in the mean.
        latency: Time that a frame may take [ms].

    Raises:
        ValueError: A value is not allowed.
    """

    budget: float | None
    long_run: float | None
    latency: float | None

    def __post_init__(self) -> None:
        from foveal.geometry.plan import check_budget

        check_budget(self.most)
        if self.long_run is not None and not 0 < self.long_run <= self.most:
            raise ValueError(
                f"--long-run is {self.long_run:g}; give a share of the dense work above 0 and at most "
                f"{self.most:g}, the most of a frame (--budget)"
            )
        if self.latency is not None and not (isfinite(self.latency) and self.latency > 0):
            raise ValueError(f"--latency is {self.latency:g}; give milliseconds above 0")

    @property
    def most(self) -> float:
        """Share of the dense work that a frame may take."""
        from foveal.methods import MethodConfig

        usual = MethodConfig.budget if self.long_run is None and self.latency is None else 1.0
        return usual if self.budget is None else self.budget


def make_paced(engine: Engine, method: str, limits: Limits, settings: Settings) -> Paced:
    """Make what segments frames.

    First frames get everything, where the method can be told; with a latency no more than there is time for.

    Raises:
        ValueError: There is no such method or setting, it cannot keep a limit, or the network takes other
            images than colour.
    """
    from foveal.inference.video import Latency, LongRun, Pace, Paced
    from foveal.methods import METHODS
    from foveal.storage.names import find

    if engine.channels != 3:
        name, channels = engine.model.name, engine.channels
        raise ValueError(f"{name} takes images of {channels} channels and videos have 3")
    kind = find(method, METHODS, "method")
    if limits.long_run is not None and not kind.uses_memory:
        able = ", ".join(name for name, other in METHODS.items() if other.uses_memory)
        raise ValueError(f"--long-run is kept by --method {able}, which leave work; given {method}")
    if limits.latency is not None and method == "dense":
        raise ValueError("--latency needs a method that can spend less, given dense; leave --method out")
    paces: list[Pace] = []
    if limits.long_run is not None:
        paces.append(LongRun(limits.long_run))
    if limits.latency is not None:
        paces.append(Latency(limits.latency))
    make = partial(_make, engine, method, settings, limits.latency is not None)
    return Paced(make, paces, limits.most, kind.uses_memory)


def make_masked(
    paced: Paced, engine: Engine, method: str, settings: Settings, region: Region
) -> MaskedFrames:
    """Make what segments frames where they are wanted.

    Raises:
        ValueError: The mask cannot be read, or wants nothing; or a setting does not fit.
    """
    from foveal.calibration.configure import configure
    from foveal.calibration.latency import Setup
    from foveal.data.raster import read_raster
    from foveal.inference.video import MaskedFrames

    wanted = read_raster(region.file).given()
    if not bool(wanted.any()):
        raise ValueError(f"--mask {region.file} wants no pixel; give one that is not 0 everywhere")
    config = configure(engine.model, method, paced.most, settings)
    setup = Setup(engine, method, config, engine.model.resources)
    return MaskedFrames(paced, setup, wanted, region.share)


def _make(engine: Engine, method: str, settings: Settings, timed: bool, share: float) -> AdaptiveSegmenter:
    """Make the method for a budget."""
    from foveal.calibration.configure import configure
    from foveal.inference.video.pace import START
    from foveal.methods import METHODS
    from foveal.methods.config import settings_of

    if "first_budget" in settings_of(METHODS[method].Config):
        settings = {"first_budget": max(share, START) if timed else FIRST, **settings}
    return engine.make(method, configure(engine.model, method, share, settings), engine.model.resources)
