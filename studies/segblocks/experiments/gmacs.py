"""MACs of the paper's networks on Cityscapes images, by counting, and what share of blocks the paper ran.

Source: Verelst and Tuytelaars, "SegBlocks", TPAMI 2022, table I.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from foveal.cost import count_macs
from foveal.models import create_model
from studies.segblocks.experiment import Experiment
from studies.segblocks.networks import Networks
from studies.segblocks.paper import BLOCK, CLASSES, SIZE, policy_gmacs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROUND = 16
"""The released code rounds the number of blocks up to a multiple of this part of all blocks."""
TARGETS = (1.0, 0.4, 0.2)
PAPER = {
    "swiftnet_rn18": (104.1, 60.5, 43.5),
    "swiftnet_rn50": (206.3, 127.2, 88.5),
    "swiftnet_efflite1": (24.9, 15.6, 11.4),
}
"""Table I: GMACs of a network at every target; target 1 is the dense network."""


@dataclass(frozen=True, kw_only=True)
class GmacsRow:
    """MACs of a network at a target.

    Attributes:
        network: Architecture.
        target: Share of the blocks at full resolution.
        gmacs: Ours at the target [GMAC].
        paper_gmacs: The paper's [GMAC].
        share_at_paper: Share of the blocks that the paper's imply; None for dense.
        excess: Of that share over the target.
        excess_by_rounding: Expected in the released code.
    """

    network: str
    target: float
    gmacs: float
    paper_gmacs: float
    share_at_paper: float | None
    excess: float | None
    excess_by_rounding: float | None


def run(networks: Networks) -> list[GmacsRow]:
    """Count; networks and images of the study are not needed."""
    return measure()


def measure() -> list[GmacsRow]:
    """Count dense and half resolution without running, and solve for the share that gives the paper's GMACs.

    A plan's MACs are linear in the share of its blocks at full resolution: everything at half resolution
    takes what the dense network takes on the halved image.
    """
    policy = policy_gmacs(64, 4)
    rows = []
    for name, figures in PAPER.items():
        full, half = (_dense_gmacs(name, scale) for scale in (1, 2))
        rows.append(_dense_row(name, full, figures[0]))
        for target, paper in zip(TARGETS[1:], figures[1:], strict=True):
            rows.append(_row(name, target, paper, (full, half, policy)))
    return rows


def rounding_excess(target: float, blocks: int) -> float:
    """Expected share of blocks that rounding up adds, if every block is drawn with a probability `target`."""
    step = max(1, blocks // ROUND)
    chances = (
        math.comb(blocks, count) * target**count * (1 - target) ** (blocks - count)
        for count in range(blocks + 1)
    )
    return sum(chance * (-count % step) / blocks for count, chance in enumerate(chances))


def draw(rows: list[GmacsRow], axes: Axes) -> None:
    """Draw the share that the paper's GMACs imply over the target."""
    implied = [
        (row.network, row.target, row.share_at_paper) for row in rows if row.share_at_paper is not None
    ]
    for name in dict.fromkeys(network for network, _, _ in implied):
        targets, shares = zip(*((t, share) for network, t, share in implied if network == name), strict=True)
        axes.plot(targets, shares, "o-", label=name)
    most = max(target for _, target, _ in implied)
    axes.plot([0, most], [0, most], "k:", label="the target kept")
    axes.set_xlabel("target share of high-resolution blocks")
    axes.set_ylabel("share that the paper's GMACs imply")
    axes.legend(fontsize=8)


def _dense_row(name: str, full: float, paper: float) -> GmacsRow:
    return GmacsRow(
        network=name,
        target=TARGETS[0],
        gmacs=round(full, 2),
        paper_gmacs=paper,
        share_at_paper=None,
        excess=None,
        excess_by_rounding=None,
    )


def _row(name: str, target: float, paper: float, counted: tuple[float, float, float]) -> GmacsRow:
    """Compare a target; what was counted is full resolution, half resolution, and the policy [GMAC]."""
    full, half, policy = counted
    implied = round((paper - policy - half) / (full - half), 3)
    blocks = SIZE[0] * SIZE[1] // BLOCK**2
    return GmacsRow(
        network=name,
        target=target,
        gmacs=round(half + target * (full - half) + policy, 2),
        paper_gmacs=paper,
        share_at_paper=implied,
        excess=round(implied - target, 3),
        excess_by_rounding=round(rounding_excess(target, blocks), 3),
    )


def _dense_gmacs(name: str, reduced: int) -> float:
    with torch.device("meta"):
        network = create_model(name, CLASSES).eval()
        image = torch.empty(1, 3, *(side // reduced for side in SIZE))
        return count_macs(lambda: network(image)).total / 1e9


EXPERIMENT = Experiment(
    "GMACs at 1024x2048, and the share of blocks that the paper ran (table I)",
    "Ours are counted at the target. The paper's figures imply more blocks at full resolution than the "
    "target: the released code rounds their number up to a multiple of 1/16 with random blocks, and the "
    "target is a soft term over a batch in training, which nothing enforces afterwards.",
    run,
    (draw,),
)
