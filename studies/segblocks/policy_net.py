"""How large the policy network must be.

Source: Verelst and Tuytelaars, "SegBlocks", TPAMI 2022, table VII.
Differs: every policy is trained afterwards on the same network, which stays as it is.
"""

from __future__ import annotations

from typing import Any

from studies.segblocks.entries import fixed, measured
from studies.segblocks.gmacs import policy_gmacs
from studies.segblocks.seeds import over_seeds
from studies.segblocks.study import Rows, work_of
from studies.segblocks.workshop import Workshop, free, learned

SHAPES = ((64, 2), (64, 3), (64, 4), (64, 5), (32, 4), (128, 4))
"""Width and layers."""
PAPER: Rows = [
    {"layers": layers, "width": width, "miou": miou / 100, "policy_gmacs": gmacs}
    for layers, width, miou, gmacs in (
        (2, 64, 75.3, 0.01),
        (3, 64, 75.5, 0.07),
        (4, 64, 76.3, 0.34),
        (5, 64, 76.1, 1.51),
        (4, 32, 76.2, 0.11),
        (4, 128, 76.1, 1.21),
    )
]
"""Table VII, RN18 on Cityscapes val, target 0.4."""


def policy_net(workshop: Workshop) -> Rows:
    """Train policies of several sizes for the first target and measure them with as many blocks as it says.

    Returns:
        Rows with layers, width, policy_gmacs (1024x2048, block 128 as in the paper), parameters, miou,
        miou_std, work, seeds.
    """
    target = workshop.targets()[0]
    shapes = [shape for shape in SHAPES if workshop.study.block % 2 ** (shape[1] + 1) == 0]
    repeats = []
    for seed in workshop.seeds():
        models = [workshop.policy(target, seed, shape=shape) for shape in shapes]
        entries = [fixed(learned(free(model), work_of(target)), "learned", target) for model in models]
        repeats.append(measured(workshop.dense(seed).network, workshop.data, entries, timed=0)[1:])
    rows = over_seeds(repeats)
    return [
        {
            "layers": layers,
            "width": width,
            "policy_gmacs": round(policy_gmacs(width, layers), 3),
            "parameters": sum(p.numel() for p in model.policy.parameters()) if model.policy else 0,
            **{key: row[key] for key in ("miou", "miou_std", "work", "seeds")},
        }
        for (width, layers), model, row in zip(shapes, models, rows, strict=True)
    ]


def draw_policy_net(rows: Rows, axes: Any) -> None:
    """Draw mIoU over the policy's GMACs, ours and the paper's, each as a difference to 4 layers of 64."""
    for name, members, mark in (("ours", rows, "o"), ("paper", PAPER, "x")):
        base = next((row["miou"] for row in members if (row["layers"], row["width"]) == (4, 64)), 0)
        places = [row["policy_gmacs"] for row in members]
        axes.plot(places, [100 * (row["miou"] - base) for row in members], mark, label=name)
        for place, row in zip(places, members, strict=True):
            text = f"{row['layers']}x{row['width']}"
            axes.annotate(
                text, (place, 100 * (row["miou"] - base)), (4, 4), textcoords="offset points", fontsize=7
            )
    axes.set_xscale("log")
    axes.set_xlabel("GMAC of the policy at 1024x2048")
    axes.set_ylabel("mIoU, difference to 4 layers x 64 [points]")
    axes.legend(fontsize=8)
