"""MACs of the paper's networks on Cityscapes images, by counting, and what share of blocks the paper ran.

Source: Verelst and Tuytelaars, "SegBlocks", TPAMI 2022, table I.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from foveal.cost import count_macs
from foveal.models import create_model
from foveal.policies import PolicyNet
from studies.segblocks.study import Rows

SIZE, BLOCK, CLASSES = (1024, 2048), 128, 19
"""Cityscapes: images [px], blocks [px], classes."""
ROUND = 16
"""The released code rounds the number of blocks up to a multiple of this part of all blocks."""
PAPER: Rows = [
    {"network": network, "target": target, "gmacs": gmacs}
    for network, figures in (
        ("swiftnet_rn18", (104.1, 60.5, 43.5)),
        ("swiftnet_rn50", (206.3, 127.2, 88.5)),
        ("swiftnet_efflite1", (24.9, 15.6, 11.4)),
    )
    for target, gmacs in zip((1.0, 0.4, 0.2), figures, strict=True)
]
"""Table I; target 1 is the dense network."""


def gmacs() -> Rows:
    """Count dense and half resolution without running, and solve for the share that gives the paper's GMACs.

    A plan's MACs are linear in the share of its blocks at full resolution: everything at half resolution
    takes what the dense network takes on the halved image.

    Returns:
        Rows with network, target, gmacs (ours at the target), paper_gmacs, share_at_paper (None for dense),
        excess (of that share over the target) and excess_by_rounding (expected in the released code).
    """
    policy = policy_gmacs(64, 4)
    rows: Rows = []
    for name in dict.fromkeys(row["network"] for row in PAPER):
        full, half = (_dense_gmacs(name, scale) for scale in (1, 2))
        for paper in (row for row in PAPER if row["network"] == name):
            rows.append(_row(paper, full, half, policy))
    return rows


def policy_gmacs(width: int, depth: int) -> float:
    """Count a policy network for the paper's images and blocks [GMAC]; nothing is computed."""
    with torch.device("meta"):
        net, image = PolicyNet(BLOCK, width, depth).eval(), torch.empty(1, 3, *SIZE)
        return count_macs(lambda: net(image)).total / 1e9


def rounding_excess(target: float, blocks: int) -> float:
    """Expected share of blocks that rounding up adds, if every block is drawn with a probability `target`."""
    step = max(1, blocks // ROUND)
    chances = (
        math.comb(blocks, count) * target**count * (1 - target) ** (blocks - count)
        for count in range(blocks + 1)
    )
    return sum(chance * (-count % step) / blocks for count, chance in enumerate(chances))


def draw_gmacs(rows: Rows, axes: Any) -> None:
    """Draw the share that the paper's GMACs imply over the target."""
    for name in dict.fromkeys(row["network"] for row in rows):
        ours = [row for row in rows if row["network"] == name and row["share_at_paper"] is not None]
        axes.plot([row["target"] for row in ours], [row["share_at_paper"] for row in ours], "o-", label=name)
    targets = [row["target"] for row in rows if row["share_at_paper"] is not None]
    axes.plot([0, max(targets)], [0, max(targets)], "k:", label="the target kept")
    axes.set_xlabel("target share of high-resolution blocks")
    axes.set_ylabel("share that the paper's GMACs imply")
    axes.legend(fontsize=8)


def _row(paper: dict[str, Any], full: float, half: float, policy: float) -> dict[str, Any]:
    target, dense = paper["target"], paper["target"] == 1
    ours = full if dense else half + target * (full - half) + policy
    implied = None if dense else round((paper["gmacs"] - policy - half) / (full - half), 3)
    blocks = SIZE[0] * SIZE[1] // BLOCK**2
    return {
        "network": paper["network"],
        "target": target,
        "gmacs": round(ours, 2),
        "paper_gmacs": paper["gmacs"],
        "share_at_paper": implied,
        "excess": None if implied is None else round(implied - target, 3),
        "excess_by_rounding": None if dense else round(rounding_excess(target, blocks), 3),
    }


def _dense_gmacs(name: str, reduced: int) -> float:
    with torch.device("meta"):
        network = create_model(name, CLASSES).eval()
        image = torch.empty(1, 3, *(side // reduced for side in SIZE))
        return count_macs(lambda: network(image)).total / 1e9
