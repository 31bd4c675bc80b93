"""How large blocks should be: small ones follow the image, large ones cost less overhead.

Source: Verelst and Tuytelaars, "SegBlocks", TPAMI 2022, table VIII.
"""

from __future__ import annotations

from typing import Any

from studies.segblocks.entries import fixed, measured
from studies.segblocks.seeds import over_seeds
from studies.segblocks.study import Rows
from studies.segblocks.workshop import Workshop, budget_of, learned

SIDES = (32, 64, 128, 256)
MOST = 3
"""Block sizes that are tried at most."""
PAPER: Rows = [
    {"block": block, "miou": miou / 100, "gmacs": gmacs, "images_s": fps}
    for block, miou, gmacs, fps in ((64, 76.3, 59.3, 11.3), (128, 76.3, 60.5, 13.5), (256, 75.2, 56.4, 14.6))
]
"""Table VIII, RN18 on Cityscapes val, target 0.4, GTX 1050 Ti; the sides are inferred from the text."""


def blocks(workshop: Workshop) -> Rows:
    """Train a policy per block size for the first target; measure all of them in turns, at its exact share.

    Returns:
        Rows with block, tile [px], miou, miou_std, gmacs, work, ms, images_s, seeds; tiles are half a block.
    """
    target = workshop.targets()[0]
    sides = fitting(int(workshop.dense().network.coarsest_stride), min(workshop.size))
    repeats = []
    for seed in workshop.seeds():
        entries = []
        for side in sides:
            model = workshop.policy(target, seed, block=side)
            entries.append(fixed(learned(model, budget_of(model, target)), str(side), target))
        timed = 0 if seed else workshop.study.timed
        repeats.append(measured(workshop.dense(seed).network, workshop.data, entries, timed))
    keys = ("miou", "miou_std", "gmacs", "work", "ms", "images_s", "seeds")
    heads: Rows = [{"block": None, "tile": None}, *({"block": side, "tile": side // 2} for side in sides)]
    return [
        {**head, **{key: row[key] for key in keys}}
        for head, row in zip(heads, over_seeds(repeats), strict=True)
    ]


def fitting(stride: int, shorter: int) -> list[int]:
    """Choose block sizes [px] whose tiles stay whole at a stride, in an image with a shorter side [px]."""
    return [side for side in SIDES if side // 2 % stride == 0 and 2 * side <= shorter][:MOST]


def draw_blocks(rows: Rows, axes: Any) -> None:
    """Draw mIoU over time, dense beside."""
    for row in rows:
        name = "dense" if row["block"] is None else f"block {row['block']} px"
        axes.plot([row["ms"]], [100 * row["miou"]], "o", label=f"{name}, {row['gmacs']:.1f} GMAC")
    axes.set_xlabel("ms per image")
    axes.set_ylabel("mIoU [%]")
    axes.legend(fontsize=8)
