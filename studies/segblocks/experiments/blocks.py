"""How large blocks should be: small ones follow the image, large ones cost less overhead.

Source: Verelst and Tuytelaars, "SegBlocks", TPAMI 2022, table VIII.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from foveal.evaluation.evaluate import evaluate
from foveal.methods import Dense
from studies.segblocks.entries import fixed
from studies.segblocks.experiment import Experiment
from studies.segblocks.learned import budget_of, learned
from studies.segblocks.networks import Networks
from studies.segblocks.seeds import over_seeds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIDES = (32, 64, 128, 256)
MOST = 3
"""Block sizes that are tried at most."""


@dataclass(frozen=True, kw_only=True)
class BlockRow:
    """A block size over seeds; see `SeedsRow`.

    Attributes:
        block: Side of a block [px]; None for the dense network.
        tile: Side of a tile [px], half a block.
    """

    block: int | None
    tile: int | None
    miou: float
    miou_std: float | None
    gmacs: float
    work: float
    ms: float | None
    images_s: float | None
    seeds: int


@dataclass(frozen=True)
class PaperRow:
    """Table VIII, RN18 on Cityscapes val, target 0.4, GTX 1050 Ti; the sides are inferred from the text."""

    block: int
    miou: float
    gmacs: float
    images_s: float


PAPER = [
    PaperRow(block, miou / 100, gmacs, fps)
    for block, miou, gmacs, fps in ((64, 76.3, 59.3, 11.3), (128, 76.3, 60.5, 13.5), (256, 75.2, 56.4, 14.6))
]


def run(networks: Networks) -> list[BlockRow]:
    """Train a policy per block size for the first target; measure all in turns, at its exact share."""
    target, images = networks.targets()[0], networks.images
    sides = fitting(int(networks.dense().network.coarsest_stride), min(images.size))
    repeats = []
    for seed in networks.seeds():
        entries = []
        for side in sides:
            model = networks.policy(target, seed, block=side)
            entries.append(fixed(learned(model, budget_of(model, target)), str(side), target))
        timed = 0 if seed else networks.study.timed
        repeats.append(evaluate(Dense(networks.dense(seed).network).eval(), images.evaluated, entries, timed))
    return [
        BlockRow(
            block=side,
            tile=None if side is None else side // 2,
            miou=row.miou,
            miou_std=row.miou_std,
            gmacs=row.gmacs,
            work=row.work,
            ms=row.ms,
            images_s=row.images_s,
            seeds=row.seeds,
        )
        for side, row in zip((None, *sides), over_seeds(repeats), strict=True)
    ]


def fitting(stride: int, shorter: int) -> list[int]:
    """Choose block sizes [px] whose tiles stay whole at a stride, in an image with a shorter side [px]."""
    return [side for side in SIDES if side // 2 % stride == 0 and 2 * side <= shorter][:MOST]


def draw(rows: list[BlockRow], axes: Axes) -> None:
    """Draw mIoU over time, dense beside."""
    for row in rows:
        if row.ms is not None:
            name = "dense" if row.block is None else f"block {row.block} px"
            axes.plot([row.ms], [100 * row.miou], "o", label=f"{name}, {row.gmacs:.1f} GMAC")
    axes.set_xlabel("ms per image")
    axes.set_ylabel("mIoU [%]")
    axes.legend(fontsize=8)


EXPERIMENT = Experiment(
    "Size of the blocks (table VIII)",
    "Each policy trained afterwards on the same network; tiles are half a block; all are timed in turns. "
    "The first row is the dense network.",
    run,
    (draw,),
    PAPER,
)
