"""IoU per class, and how much of every class is seen at full resolution.

Source: Verelst and Tuytelaars, "SegBlocks", TPAMI 2022, table II and section 4.1.3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foveal.evaluation.evaluate import evaluate
from foveal.methods import Dense, Prediction
from foveal.storage.labels import VOID
from studies.segblocks.entries import watched
from studies.segblocks.experiment import Experiment
from studies.segblocks.learned import learned
from studies.segblocks.networks import Networks
from studies.segblocks.rows import BY_TARGET, stored_as
from studies.segblocks.seeds import mean_of, rounded

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class ClassAtTarget:
    """A class under a policy: its IoU, and the share of its pixels in blocks at full resolution."""

    iou: float | None
    fine: float | None


@dataclass(frozen=True)
class ClassRow:
    """A class; means over the seeds.

    Attributes:
        name: Of the class.
        pixels: Its share of the labels.
        iou_dense: IoU of the dense network; None for a class that does not occur.
        targets: What policies make of it, by target.
    """

    name: str = field(metadata=stored_as("class"))
    pixels: float | None
    iou_dense: float | None
    targets: dict[float, ClassAtTarget] = field(metadata=BY_TARGET)


@dataclass(frozen=True)
class PaperRow:
    """Table II, RN18 on Cityscapes val; the dense IoU of motorcycle is illegible in the copy read."""

    name: str = field(metadata=stored_as("class"))
    iou_dense: float | None
    targets: dict[float, ClassAtTarget] = field(metadata=BY_TARGET)


NAMES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign"),
    *("vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle"),
    "bicycle",
)
DENSE = (97.8, 82.9, 91.8, 50.9, 56.2, 63.0, 69.0, 78.1, 92.2, 61.4, 94.7, 80.5, 60.0, 94.8, 78.3, 84.3, 75.0)
OURS = (97.8, 82.9, 91.9, 59.5, 57.6, 61.1, 67.0, 76.2, 92.1, 61.9, 94.4, 80.4, 59.9, 94.4, 77.2, 82.4, 77.2)
FINE = (8.5, 45.8, 64.0, 67.0, 88.5, 86.3, 85.6, 82.2, 59.7, 68.2, 36.7, 93.3, 96.2, 66.2, 61.7, 68.9, 85.0)
PAPER = [
    PaperRow(name, dense and dense / 100, {0.4: ClassAtTarget(ours / 100, fine / 100)})
    for name, dense, ours, fine in zip(
        NAMES, (*DENSE, None, 76.3), (*OURS, 60.1, 75.7), (*FINE, 90.9, 93.2), strict=True
    )
]


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


def run(networks: Networks) -> list[ClassRow]:
    """Measure every class for the dense network and every target, and the share that is seen closely."""
    repeats = [_repeat(networks, seed) for seed in networks.seeds()]
    return [_mean(rows) for rows in zip(*repeats, strict=True)]


def draw(rows: list[ClassRow], axes: Axes) -> None:
    """Draw the share of every class at full resolution, least first."""
    targets = list(rows[0].targets)
    known = [row for row in rows if row.targets[targets[0]].fine is not None]
    ranked = sorted(known, key=lambda row: row.targets[targets[0]].fine or 0)
    height = 0.8 / len(targets)
    for number, target in enumerate(targets):
        places = [k + number * height for k in range(len(ranked))]
        values = [100 * (row.targets[target].fine or 0) for row in ranked]
        axes.barh(places, values, height, label=f"target {target:g}")
    axes.set_yticks([k + 0.4 - height / 2 for k in range(len(ranked))], [row.name for row in ranked])
    axes.set_xlabel("pixels of the class at full resolution [%]")
    axes.legend(fontsize=8, loc="lower right")


def _repeat(networks: Networks, seed: int) -> list[ClassRow]:
    data, targets = networks.images.evaluated, networks.targets()
    counts = {target: FineShare(len(data.classes)) for target in targets}
    networks.report(f"classes, seed {seed}")
    entries = [
        watched(learned(networks.segblocks(target, seed)), "learned", target, counts[target].see)
        for target in targets
    ]
    dense, *ours = evaluate(Dense(networks.dense(seed).network).eval(), data, entries, timed=0)
    pixels = counts[targets[0]].all.tolist()
    rows = []
    for index, name in enumerate(data.classes):
        seen = {
            target: ClassAtTarget(row.iou[name], counts[target].share[index])
            for target, row in zip(targets, ours, strict=True)
        }
        rows.append(ClassRow(name, pixels[index] / max(1, sum(pixels)), dense.iou[name], seen))
    return rows


def _mean(rows: tuple[ClassRow, ...]) -> ClassRow:
    first = rows[0]
    targets = {
        target: ClassAtTarget(
            rounded(mean_of([row.targets[target].iou for row in rows])),
            rounded(mean_of([row.targets[target].fine for row in rows])),
        )
        for target in first.targets
    }
    pixels = rounded(mean_of([row.pixels for row in rows]))
    return ClassRow(first.name, pixels, rounded(mean_of([row.iou_dense for row in rows])), targets)


EXPERIMENT = Experiment(
    "Per class: IoU, and pixels at full resolution (table II)",
    "Fine is the share of a class's labelled pixels in blocks at full resolution.",
    run,
    (draw,),
    PAPER,
)
