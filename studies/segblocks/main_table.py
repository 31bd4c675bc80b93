"""Quality, cost and speed of the dense network, of SegBlocks, and of the dense network on reduced images.

Source: Verelst and Tuytelaars, "SegBlocks", TPAMI 2022, tables I and IV, figure 7.
"""

from __future__ import annotations

from typing import Any

from foveal.evaluation.baselines import static
from studies.segblocks.entries import fixed, measured
from studies.segblocks.seeds import over_seeds
from studies.segblocks.study import Row, Rows, work_of
from studies.segblocks.workshop import Workshop, budget_of, learned

PAPER: Rows = [
    {"data": data, "network": network, "target": target, "miou": miou / 100, "gmacs": gmacs, "images_s": fps}
    for data, network, target, miou, gmacs, fps in (
        ("Cityscapes val", "RN50", None, 78.0, 206.3, 16.3),
        ("Cityscapes val", "RN50", 0.4, 77.5, 127.2, 23.3),
        ("Cityscapes val", "RN50", 0.2, 76.2, 88.5, 30.0),
        ("Cityscapes val", "RN18", None, 76.2, 104.1, 38.4),
        ("Cityscapes val", "RN18", 0.4, 76.3, 60.5, 48.6),
        ("Cityscapes val", "RN18", 0.2, 75.9, 43.5, 57.8),
        ("Cityscapes val", "RN18, reduced", None, 74.7, None, None),
        ("Cityscapes val", "EffL1", None, 76.6, 24.9, 17.4),
        ("Cityscapes val", "EffL1", 0.4, 76.3, 15.6, 30.4),
        ("Cityscapes val", "EffL1", 0.2, 75.3, 11.4, 35.6),
        ("CamVid test", "EffL1", None, 75.1, 13.4, 48.0),
        ("CamVid test", "EffL1", 0.4, 74.6, 9.1, 58.0),
        ("CamVid test", "EffL1", 0.2, 73.4, 6.6, 64.0),
    )
]
"""Tables I and IV; images per second on a GTX 1080 Ti."""

HALF = 0.25
"""Work of everything at half resolution."""


def main_table(workshop: Workshop) -> Rows:
    """Measure every architecture: dense, SegBlocks by probability and by exact budget, reduced images.

    Returns:
        Rows as from `over_seeds`, with backbone and target; what is timed takes turns on every image.
    """
    rows: Rows = []
    for backbone in workshop.backbones:
        repeats = [_repeat(workshop, backbone, seed) for seed in workshop.seeds(backbone)]
        heads = [None, *(target for target in workshop.targets(backbone) for _ in range(2))]
        joined = over_seeds(repeats)
        for row in joined:  # one network repeated has no deviation
            if row["method"] != "segblocks" and not workshop.repeated(backbone):
                row |= {"miou_std": None, "seeds": 1}
        heads += [None] * (len(joined) - len(heads))
        rows += [
            {"backbone": backbone, "network": label(row), "target": target, **row}
            for row, target in zip(joined, heads, strict=True)
        ]
    return rows


def readable(rows: Rows) -> Rows:
    """Leave out what the name of the network says already."""
    told = ("method", "policy", "budget", "images")
    return [{key: value for key, value in row.items() if key not in told} for row in rows]


def label(row: Row) -> str:
    """Name a row of an evaluation for people."""
    if row["method"] == "segblocks":
        return f"SegBlocks, {row['policy']}"
    return "dense" if row["method"] == "dense" else f"dense, {row['policy']}"


def draw_main_table(rows: Rows, axes: Any) -> None:
    """Draw mIoU over GMACs: a line of reduced images, a line per rule of SegBlocks."""
    for backbone in dict.fromkeys(row["backbone"] for row in rows):
        ours = [row for row in rows if row["backbone"] == backbone]
        dense = [row for row in ours if row["method"] == "dense"]
        for name, members in (
            ("reduced images", dense + [row for row in ours if row["method"] == "static"]),
            *(
                (f"SegBlocks, {rule}", dense + [row for row in ours if row["policy"] == rule])
                for rule in RULES
            ),
        ):
            members = sorted(members, key=lambda row: row["gmacs"])
            axes.errorbar(
                [row["gmacs"] for row in members],
                [100 * row["miou"] for row in members],
                [100 * (row["miou_std"] or 0) for row in members],
                marker="o",
                capsize=3,
                label=f"{backbone}, {name}",
            )
    axes.set_xlabel("GMAC per image")
    axes.set_ylabel("mIoU [%]")
    axes.legend(fontsize=8)


RULES = ("probability", "budget")
"""Blocks above a probability of one half, as in the paper; or the most probable that the budget pays for."""


def _repeat(workshop: Workshop, backbone: str, seed: int) -> Rows:
    """Evaluate one seed of an architecture; only the first is timed."""
    workshop.report(f"{backbone}, seed {seed}")
    dense = workshop.dense(seed, backbone)
    entries = []
    for target in workshop.targets(backbone):
        model = workshop.segblocks(target, seed, backbone)
        for rule, budget in zip(RULES, (None, budget_of(model, target)), strict=True):
            entries.append(fixed(learned(model, budget), rule, budget or target))
    works = [*(work_of(target) for target in workshop.targets(backbone)), HALF]
    entries += [static(dense.network, work) for work in works]
    timed = 0 if seed else workshop.study.timed
    return measured(dense.network, workshop.data, entries, timed)
