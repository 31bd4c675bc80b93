"""Run time of a network on this machine: measured once and stored, one cost model per setup.

Time depends on how many samples are computed, not on which, so a generated picture stands for any image.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from foveal import __version__
from foveal.calibration.cost_model import CostModel, Measurement
from foveal.calibration.engine import Engine
from foveal.calibration.profile import METHOD
from foveal.cost import alternate
from foveal.kernels.build import built
from foveal.methods import METHODS, AdaptiveSegmenter, MethodConfig, Resources
from foveal.methods.config import settings_of
from foveal.methods.scaling import config_within, pixel_share
from foveal.ops import tuning
from foveal.storage.store import Store
from foveal.tiles import NoTileRule

AREAS = (1.0, 0.5, 0.25)
"""Areas of the images that are measured, as shares of the area that is asked for."""
TILES = 8, 4
"""Least tiles along a side of the largest image, and of any: with fewer, most of them hang over the edge."""
LARGEST = 1 << 22
"""Pixels from which on time is proportional to the area, and larger images need no measurement [px]."""
REACH = 2
"""A model is good for images of so many times the pixels of the largest that it was measured on."""
BUDGETS = (0.25, 0.5, 0.8)
"""Budgets that are measured; one that pays for no plan is replaced by that of the cheapest."""
ANY = 0.5
"""A budget to make a method with where only its cheapest plan is asked for."""
TILED, DENSE = "segblocks", "dense"
"""The method that runs everything on tiles, and the one that runs whole images."""
ROUNDS = 5
GRAIN = 32
"""Side of the patches of the picture that is measured on [px]."""

COSTS = Store("cost", version=1)
"""Cost models by the key of a setup."""

Report = Callable[[str], None]


class NotKept(OSError):
    """A cost model was measured, and cannot be stored.

    Attributes:
        model: What was measured.
    """

    def __init__(self, problem: str, model: CostModel) -> None:
        super().__init__(problem)
        self.model = model


def silent(text: str) -> None:
    """Discard the report."""


@dataclass(frozen=True)
class Setup:
    """What a cost model describes. The number of threads is read when a time is needed.

    Attributes:
        engine: What runs a trained network.
        method: Name in `foveal.methods.METHODS`.
        config: Settings of the method; the budget is not part of the setup.
        resources: What the method may use besides the network.
    """

    engine: Engine
    method: str
    config: MethodConfig
    resources: Resources = field(default_factory=Resources)

    def make(self, budget: float) -> AdaptiveSegmenter:
        """Make the method with a budget."""
        config = replace(self.config, budget=budget)
        return self.engine.make(self.method, config, self.resources)

    def make_for_mask(self, budget: float, dense: bool) -> AdaptiveSegmenter:
        """Make what leaves out what a mask does not want, with a budget.

        The dense network, which computes whole images, becomes everything at level 0: there are tiles then.
        """
        if not dense and METHODS[self.method].supports_masks:
            return self.make(budget)
        border = self.config.settings.get("mask_border") or "edge"
        tiled = METHOD if border == "coarse" else TILED
        known = settings_of(METHODS[tiled].Config)
        values: dict[str, Any] = {**self.tiles, "mask_border": border, "scale": self.config.scale}
        config = METHODS[tiled].Config(1.0, **{name: values[name] for name in known if name in values})
        return self.engine.make(tiled, config)

    @property
    def instead(self) -> str:
        """Say in a sentence what runs under a mask in place of a method that takes none; empty if it does."""
        if METHODS[self.method].supports_masks:
            return ""
        return (
            f"method {self.method} takes no mask; the network runs on tiles at full resolution instead, "
            f"whatever the budget, and leaves out what is not wanted"
        )

    def make_dense(self) -> AdaptiveSegmenter:
        """Make the dense network, on images shrunk by the scale of the settings."""
        config = METHODS[DENSE].Config(scale=self.config.scale)
        return self.engine.make(DENSE, config) if config.scale < 1 else self.engine.dense()

    def share(self, size: tuple[int, int]) -> float:
        """Return the share of the pixels of an image of `size` [px] that the scale leaves."""
        return pixel_share(size, self.config.scale)

    def is_dense(self, size: tuple[int, int]) -> bool:
        """Whether everything that the scale leaves of an image of `size` [px] is paid for."""
        return config_within(self.config, size).is_dense

    @property
    def tiles(self) -> dict[str, int]:
        """Tile and levels in the words of `TILED`: those of the method, else what the model recommends."""
        level = self.engine.model.card.coarse_level
        return {"tile": self.tile, "max_level": level, "coarse_level": level}

    @property
    def tile(self) -> int:
        """Side of the cells of a mask [px]: a tile of the method, or what the model recommends."""
        return self.config.whole("tile", self.engine.model.card.tile)

    @property
    def name(self) -> str:
        """Name of the network."""
        return self.engine.model.name

    @property
    def adjustable(self) -> bool:
        """Whether the method has a budget to choose."""
        return self.config.adjustable

    @property
    def title(self) -> str:
        """Method and settings in words."""
        return " ".join(filter(None, [self.method, self.config.title]))

    def least_work(self, size: tuple[int, int]) -> float:
        """Return the work of the cheapest plan for an image of `size` [px], the coarse pass included."""
        return self.make(ANY * self.share(size)).least_work(size)

    @cached_property
    def weights(self) -> str:
        """Fingerprint of the trained numbers."""
        return self.engine.model.weights

    @property
    def key(self) -> str:
        """Key of the cost model in `COSTS`: another one for anything that time depends on."""
        config, threads = self.config, torch.get_num_threads()
        parts = (self.weights, self.method, config.scale, *config.time_key, self.engine.name, threads)
        if self.engine.small is not None:
            parts = (*parts, self.engine.small.model.weights, self.engine.small.name)
        text = "\n".join(str(part) for part in (*parts, built(), torch.__version__, __version__))
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def stored(setup: Setup) -> CostModel | None:
    """Return what was measured before; None if nothing was, or the file is damaged, which is said once."""
    if not COSTS.place.is_dir():  # before the weights are read
        return None
    record = COSTS.read(setup.key)
    try:
        return CostModel.from_record(record) if record is not None else None
    except ValueError as error:
        COSTS.doubt(setup.key, error)
        return None


def covers(model: CostModel, size: tuple[int, int]) -> bool:
    """Whether a model may predict times for an image of `size` [px].

    It is for any smaller image than the largest that was measured, for images of up to `REACH` times its
    pixels, and for any image once `LARGEST` pixels are within that reach.
    """
    return min(math.prod(size), LARGEST) <= REACH * model.largest


def cost_model(
    setup: Setup, size: tuple[int, int], report: Report = silent, known: CostModel | None = None
) -> CostModel:
    """Return the cost model that is known or stored; measure first if there is none, or none for `size` [px].

    Raises:
        ValueError: There is no budget, no plan is cheaper than dense, or an operation has no rule for tiles.
    """
    known = known or stored(setup)
    if known is not None and covers(known, size):
        return known
    try:
        return calibrate(setup, size, report, known)
    except NotKept as error:
        report(f"{error}; it is measured again next time")
        return error.model


def calibrate(
    setup: Setup, size: tuple[int, int], report: Report = silent, known: CostModel | None = None
) -> CostModel:
    """Measure and store the cost model.

    Args:
        setup: What is measured.
        size: Height and width of the image that is asked for [px].
        report: Called with what is done, before it takes time.
        known: An earlier cost model; its measurements at other sizes count as well.

    Raises:
        NotKept: It cannot be stored.
        ValueError: There is no budget, no plan is cheaper than dense, or an operation has no rule for tiles.
    """
    if not setup.adjustable:
        raise ValueError(
            f"method {setup.title} has no budget to predict times for; give another method or policy"
        )
    report("measuring how fast this machine is, once")
    rows = measure(
        setup, sizes(size, math.ceil(tile_of(setup.config) / setup.config.scale), setup.engine.multiple)
    )
    new = {row.size for row in rows}
    old = [row for row in known.rows if row.size not in new] if known else []
    model = CostModel.fit([*old, *rows])
    try:
        COSTS.write(setup.key, model.as_record())
    except OSError as error:
        raise NotKept(str(error), model) from None
    return model


def sizes(size: tuple[int, int], tile: int, multiple: int = 1) -> list[tuple[int, int]]:
    """Choose the images to measure for one of `size` [px], the largest first.

    The largest has the size that is asked for, but at least `TILES[0]` tiles along each side, and `LARGEST`
    pixels at most where tiles allow it. Sides are multiples of `multiple` [px].
    """
    first, least = (count * tile for count in TILES)
    sides = [max(side, first) for side in size]
    area = min(1.0, LARGEST / math.prod(sides))
    found = []
    for share in AREAS:
        height, width = (max(round(side * math.sqrt(area * share)), least) for side in sides)
        found.append((height - height % -multiple, width - width % -multiple))
    return list(dict.fromkeys(found))


@torch.no_grad()
def measure(setup: Setup, found: Sequence[tuple[int, int]]) -> list[Measurement]:
    """Time the dense network and the method in turns, on parts of one picture [px], the largest first.

    Algorithms are chosen along the way, for these sizes as for the images that follow.

    Raises:
        ValueError: There is no budget, no plan is cheaper than dense, or an operation has no rule for tiles.
    """
    image = picture(found[0], getattr(setup.engine.model.network, "in_channels", 3))
    with on_tiles(setup.name):
        return [_measure(setup, image[:, :, :height, :width]) for height, width in found]


def picture(size: tuple[int, int], channels: int = 3) -> Tensor:
    """Draw patches of random colours [1, C, H, W] in 0..1, the same for the same size [px]."""
    rows, columns = (-(-side // GRAIN) for side in size)
    patches = torch.rand(1, channels, rows, columns, generator=torch.Generator().manual_seed(0))
    return patches.repeat_interleave(GRAIN, 2).repeat_interleave(GRAIN, 3)[:, :, : size[0], : size[1]]


def tile_of(config: MethodConfig) -> int:
    """Return the side of a tile [px] of a method; 1 for one without tiles."""
    return int(getattr(config, "tile", 1))


@contextmanager
def on_tiles(name: str) -> Iterator[None]:
    """Say in one sentence that a network cannot run on tiles.

    Raises:
        ValueError: It cannot.
    """
    try:
        yield
    except NoTileRule as error:
        raise ValueError(f"{name} cannot run on tiles: {error}") from None


def _measure(setup: Setup, part: Tensor) -> Measurement:
    """Measure on one image [1, 3, H, W]; the first run of everything is for choosing algorithms."""
    image = part.contiguous(memory_format=torch.channels_last)
    size = (image.shape[2], image.shape[3])
    methods = {str(budget): setup.make(budget) for budget in _budgets(setup, size)}
    with tuning():
        works = {name: float(method(image).trace.work[0]) for name, method in methods.items()}
        methods["dense"] = setup.engine.dense()
        methods["dense"](image)
    runs: dict[str, Callable[[], Any]] = {
        name: partial(_labels, method, image) for name, method in methods.items()
    }
    times = {name: timing.median for name, timing in alternate(runs, ROUNDS, warmup=1).items()}
    return Measurement(size, times["dense"], tuple((works[name], times[name]) for name in works))


def _budgets(setup: Setup, size: tuple[int, int]) -> list[float]:
    """Choose budgets that pay for a plan.

    Raises:
        ValueError: None below 1 does.
    """
    least, whole = setup.least_work(size), setup.share(size)
    if least >= whole:
        raise ValueError(
            f"no plan for {size[0]}x{size[1]} px is cheaper than the dense network with {setup.title}; allow "
            "a coarser level"
        )
    return list(dict.fromkeys(max(budget * whole, least) for budget in BUDGETS))


def _labels(method: AdaptiveSegmenter, image: Tensor) -> Tensor:
    return method(image).labels
