"""IoU per class, and how much of every class is seen at full resolution.

Source: Verelst and Tuytelaars, "SegBlocks", TPAMI 2022, table II and section 4.1.3.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foveal.methods import Prediction
from foveal.storage.labels import VOID
from studies.segblocks.entries import measured, watched
from studies.segblocks.seeds import mean_of
from studies.segblocks.study import Row, Rows
from studies.segblocks.workshop import Workshop, learned

NAMES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign"),
    *("vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle"),
    "bicycle",
)
DENSE = (97.8, 82.9, 91.8, 50.9, 56.2, 63.0, 69.0, 78.1, 92.2, 61.4, 94.7, 80.5, 60.0, 94.8, 78.3, 84.3, 75.0)
OURS = (97.8, 82.9, 91.9, 59.5, 57.6, 61.1, 67.0, 76.2, 92.1, 61.9, 94.4, 80.4, 59.9, 94.4, 77.2, 82.4, 77.2)
FINE = (8.5, 45.8, 64.0, 67.0, 88.5, 86.3, 85.6, 82.2, 59.7, 68.2, 36.7, 93.3, 96.2, 66.2, 61.7, 68.9, 85.0)
PAPER: Rows = [
    {"class": name, "iou_dense": dense and dense / 100, "iou_0.4": ours / 100, "fine_0.4": fine / 100}
    for name, dense, ours, fine in zip(
        NAMES, (*DENSE, None, 76.3), (*OURS, 60.1, 75.7), (*FINE, 90.9, 93.2), strict=True
    )
]
"""Table II, RN18 on Cityscapes val; the dense IoU of motorcycle is illegible in the copy that was read."""


class FineShare:
    """Counts the pixels of every class [K], and those of them in blocks at full resolution."""

    def __init__(self, classes: int) -> None:
        self.fine, self.all = torch.zeros(2, classes, dtype=torch.int64)

    def see(self, prediction: Prediction, target: Tensor) -> None:
        """Count the pixels of labels [N, H, W] under the prediction's last plan."""
        plan = prediction.trace.plan
        assert plan is not None, "a watched method decides by a plan"
        height, width = plan.size
        cells = plan.levels.repeat_interleave(plan.tile, 1).repeat_interleave(plan.tile, 2)
        fine = cells[:, :height, :width] == 0
        known, classes = target != VOID, len(self.all)
        self.all += torch.bincount(target[known].long(), minlength=classes)
        self.fine += torch.bincount(target[known & fine].long(), minlength=classes)

    @property
    def share(self) -> list[float | None]:
        """Share of every class; None where it does not occur."""
        pairs = zip(self.fine.tolist(), self.all.tolist(), strict=True)
        return [fine / total if total else None for fine, total in pairs]


def classes(workshop: Workshop) -> Rows:
    """Measure every class for the dense network and every target, and the share that is seen closely.

    Returns:
        Rows with class, pixels (share of the labels), iou_dense, and iou_T and fine_T for every target T;
        means over the seeds.
    """
    repeats = [_repeat(workshop, seed) for seed in workshop.seeds()]
    return [
        {key: rows[0][key] if key == "class" else _rounded([row[key] for row in rows]) for key in rows[0]}
        for rows in zip(*repeats, strict=True)
    ]


def draw_classes(rows: Rows, axes: Any) -> None:
    """Draw the share of every class at full resolution, least first."""
    keys = [key for key in rows[0] if key.startswith("fine_")]
    rows = sorted((row for row in rows if row[keys[0]] is not None), key=lambda row: row[keys[0]])
    height = 0.8 / len(keys)
    for number, key in enumerate(keys):
        places = [k + number * height for k in range(len(rows))]
        values = [100 * (row[key] or 0) for row in rows]
        axes.barh(places, values, height, label=f"target {key.removeprefix('fine_')}")
    axes.set_yticks([k + 0.4 - height / 2 for k in range(len(rows))], [row["class"] for row in rows])
    axes.set_xlabel("pixels of the class at full resolution [%]")
    axes.legend(fontsize=8, loc="lower right")


def _repeat(workshop: Workshop, seed: int) -> Rows:
    names, targets = workshop.data.classes, workshop.targets()
    counts = {target: FineShare(len(names)) for target in targets}
    workshop.report(f"classes, seed {seed}")
    entries = [
        watched(learned(workshop.segblocks(target, seed)), "learned", target, counts[target].see)
        for target in targets
    ]
    dense, *ours = measured(workshop.dense(seed).network, workshop.data, entries, timed=0)
    rows: Rows = []
    total = int(counts[targets[0]].all.sum())
    for index, name in enumerate(names):
        row: Row = {"class": name, "pixels": int(counts[targets[0]].all[index]) / max(1, total)}
        row["iou_dense"] = dense["iou"][name]
        for target, found in zip(targets, ours, strict=True):
            row[f"iou_{target:g}"] = found["iou"][name]
            row[f"fine_{target:g}"] = counts[target].share[index]
        rows.append(row)
    return rows


def _rounded(values: list[float | None]) -> float | None:
    mean = mean_of(values)
    return None if mean is None else round(mean, 4)
