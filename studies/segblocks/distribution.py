"""How many MACs every single image takes: by probability they follow the image, by budget they do not.

Source: Verelst and Tuytelaars, "SegBlocks", TPAMI 2022, figure 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import Any

from studies.segblocks.entries import fixed, measured
from studies.segblocks.main_table import RULES
from studies.segblocks.study import Row, Rows
from studies.segblocks.workshop import Workshop, budget_of, learned, single

MOST = 240
"""Images that are counted at most."""


def distribution(workshop: Workshop) -> Rows:
    """Count every image by itself.

    Returns:
        Rows with image (number), target, rule, gmacs and work.
    """
    entries, heads = [], []
    for target in workshop.targets():
        model = workshop.segblocks(target)
        for rule, budget in zip(RULES, (None, budget_of(model, target)), strict=True):
            entries.append(fixed(learned(model, budget), rule, target))
            heads.append({"target": target, "rule": rule})
    network = workshop.dense().network
    rows: Rows = []
    for index in range(min(MOST, len(workshop.data))):
        found = measured(network, single(workshop.data, index), entries, timed=0)[1:]
        rows += [
            {"image": index, **head, "gmacs": round(row["macs"] / 1e9, 4), "work": row["work"]}
            for head, row in zip(heads, found, strict=True)
        ]
    return rows


def summary(rows: Rows) -> Rows:
    """Say mean, spread and extremes per target and rule."""
    return [
        {
            **head,
            "images": len(values),
            "gmacs": round(fmean(values), 3),
            "deviation": round(pstdev(values), 3),
            "least": round(min(values), 3),
            "most": round(max(values), 3),
        }
        for head, values in groups(rows)
    ]


def draw_distribution(rows: Rows, axes: Any) -> None:
    """Draw a histogram per target and rule."""
    found = [row["gmacs"] for row in rows]
    low, high = min(found), max(found)
    width = max(high - low, 1e-6) / 24
    bins = [low + width * k for k in range(25)]
    for head, values in groups(rows):
        name = f"target {head['target']:g}, {head['rule']}"
        axes.hist(values, bins, alpha=0.55, label=name)
    axes.set_xlabel("GMAC per image")
    axes.set_ylabel("images")
    axes.legend(fontsize=8)


def groups(rows: Sequence[Row]) -> list[tuple[Row, list[float]]]:
    """Return the GMACs of every target and rule."""
    heads = dict.fromkeys((row["target"], row["rule"]) for row in rows)
    return [
        (
            {"target": target, "rule": rule},
            [row["gmacs"] for row in rows if (row["target"], row["rule"]) == (target, rule)],
        )
        for target, rule in heads
    ]
