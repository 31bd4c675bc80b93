"""How fast this machine is with a network: measured once, kept in `folder()/cost`, one file per setup.

Time depends on how many samples are computed, not on which, so a generated street stands for any image.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foveal import __version__
from foveal.calibration.cost_model import CostModel, Measurement
from foveal.cost import alternate
from foveal.data.synthetic import street
from foveal.hub.checkpoint import fingerprint
from foveal.kernels.build import built
from foveal.methods import METHODS, Dense, Request, Segmenter
from foveal.ops import tuning
from foveal.policies import POLICIES
from foveal.storage.cache import folder
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
ROUNDS = 5
STREET = 24
"""Seed of the street."""

Report = Callable[[str], None]


def silent(text: str) -> None:
    """Report to nobody."""


@dataclass(frozen=True)
class Setup:
    """What a cost model is of. The number of threads is taken as it is when time matters.

    Attributes:
        name: Name of the network, for messages.
        network: The network as it was trained.
        fast: The network that runs.
        method: Name in `foveal.methods.METHODS`.
        request: Tile, levels and policy; its budget is not part of the setup.
    """

    name: str
    network: nn.Module
    fast: nn.Module
    method: str
    request: Request

    def make(self, budget: float) -> Segmenter:
        """Make the method with a budget."""
        request = replace(self.request, budget=budget)
        return METHODS[self.method].on_request(self.fast, request).eval()

    @property
    def adjustable(self) -> bool:
        """Whether method and policy have a budget to choose."""
        return self.method != "dense" and POLICIES[self.request.policy].budget is None

    def least_work(self, size: tuple[int, int]) -> float:
        """Return the work of the cheapest plan for an image of `size` [px], the look included."""
        return self.make(ANY).least_work(size)

    @cached_property
    def weights(self) -> str:
        """Fingerprint of the trained numbers."""
        return fingerprint(self.network)

    @property
    def file(self) -> Path:
        """Where the cost model is kept: another file for anything that time depends on."""
        asked = self.request
        look = asked.look if POLICIES[asked.policy].looks else None
        parts = (self.weights, self.method, asked.tile, asked.coarsest, look, torch.get_num_threads())
        text = "\n".join(str(part) for part in (*parts, built(), torch.__version__, __version__))
        return folder() / "cost" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def stored(setup: Setup) -> CostModel | None:
    """Return what was measured before; None if nothing was, or the file is damaged."""
    if not (folder() / "cost").is_dir():  # before the weights are read
        return None
    try:
        return CostModel.load(setup.file)
    except (OSError, ValueError):
        return None


def covers(model: CostModel, size: tuple[int, int]) -> bool:
    """Whether a model is good for an image of `size` [px].

    It is for any smaller image than the largest that was measured, for images of up to `REACH` times its
    pixels, and for any image once `LARGEST` pixels are within that reach.
    """
    return min(math.prod(size), LARGEST) <= REACH * model.largest


def cost_model(
    setup: Setup, size: tuple[int, int], report: Report = silent, known: CostModel | None = None
) -> CostModel:
    """Return the cost model that is known or stored; measure first if there is none, or none for `size` [px].

    Raises:
        ValueError: There is no budget, no plan cheaper than dense, or no meaning of the network on tiles.
    """
    known = known or stored(setup)
    if known is not None and covers(known, size):
        return known
    return calibrate(setup, size, report, known)


def calibrate(
    setup: Setup, size: tuple[int, int], report: Report = silent, known: CostModel | None = None
) -> CostModel:
    """Measure, and keep the cost model. A folder that cannot be written is no error: it is measured again.

    Args:
        setup: What is measured.
        size: Height and width of the image that is asked for [px].
        report: Called with what is done, before it takes time.
        known: An earlier cost model; its measurements at other sizes count as well.

    Raises:
        ValueError: There is no budget, no plan cheaper than dense, or no meaning of the network on tiles.
    """
    if not setup.adjustable:
        raise ValueError(
            f"method {setup.method} with policy {setup.request.policy} has no budget to predict times for; "
            "give another method or policy"
        )
    report("measuring how fast this machine is, once")
    rows = measure(setup, sizes(size, setup.request.tile))
    new = {row.size for row in rows}
    old = [row for row in known.rows if row.size not in new] if known else []
    model = CostModel.fit([*old, *rows])
    try:
        model.save(setup.file)
    except OSError:
        return model
    return model


def sizes(size: tuple[int, int], tile: int) -> list[tuple[int, int]]:
    """Choose the images to measure for one of `size` [px], the largest first.

    The largest has the size that is asked for, but at least `TILES[0]` tiles along each side, and `LARGEST`
    pixels at most where tiles allow it.
    """
    first, least = (count * tile for count in TILES)
    sides = [max(side, first) for side in size]
    area = min(1.0, LARGEST / math.prod(sides))
    found = []
    for share in AREAS:
        height, width = (max(round(side * math.sqrt(area * share)), least) for side in sides)
        found.append((height, width))
    return list(dict.fromkeys(found))


@torch.no_grad()
def measure(setup: Setup, found: Sequence[tuple[int, int]]) -> list[Measurement]:
    """Time the dense network and the method in turns, on parts of one street [px], the largest first.

    Algorithms are chosen along the way, for these sizes as for the images that follow.

    Raises:
        ValueError: There is no budget, no plan cheaper than dense, or no meaning of the network on tiles.
    """
    picture = street(STREET, found[0])[0][None]
    with on_tiles(setup.name):
        return [_measure(setup, picture[:, :, :height, :width]) for height, width in found]


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


def _measure(setup: Setup, picture: Tensor) -> Measurement:
    """Measure on one image [1, 3, H, W]; the first run of everything is for choosing algorithms."""
    image = picture.contiguous(memory_format=torch.channels_last)
    size = (image.shape[2], image.shape[3])
    methods = {str(budget): setup.make(budget) for budget in _budgets(setup, size)}
    with tuning():
        works = {name: float(method(image).trace.work[0]) for name, method in methods.items()}
        methods["dense"] = Dense(setup.fast).eval()
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
    least = setup.least_work(size)
    if least >= 1:
        raise ValueError(
            f"no plan for {size[0]}x{size[1]} px with tile {setup.request.tile} and coarsest level "
            f"{setup.request.coarsest} is cheaper than the dense network; allow a coarser level"
        )
    return list(dict.fromkeys(max(budget, least) for budget in BUDGETS))


def _labels(method: Segmenter, image: Tensor) -> Tensor:
    return method(image).labels
