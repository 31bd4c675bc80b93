"""A row of an evaluation: one method at one setting, its quality and its cost over a data set."""

from __future__ import annotations

from dataclasses import dataclass

from foveal.methods.config import SettingValue


@dataclass(frozen=True, kw_only=True)
class EvalRow:
    """Quality and cost of one method over a data set; means are over images.

    A figure that the labels do not define (all void) is None. In JSON a field whose default is None is left
    out while it has that value.

    Attributes:
        method: Name of the method, "dense" or "static" (the whole image shrunk).
        policy: What decides which tiles run; empty for the dense network.
        budget: Work that was asked for, a share of the dense network's.
        work: Mean work, a share of the dense network's.
        work_max: Largest work of an image.
        miou: Mean IoU over the classes that occur in the labels, 0..1.
        iou: IoU per class, 0..1; None for a class that neither occurs nor is predicted.
        pixel_accuracy: Share of the labelled pixels that are right.
        boundary_f: F score of the class boundaries, 0..1.
        agreement: Share of the pixels with the dense network's label.
        disagreement: Class-balanced disagreement with the dense network, where class weights were given.
        excess_error: Class-balanced error beyond the dense network's, where the risk is of that.
        macs: Mean multiply-accumulates of an image [MAC].
        ms: Median time of an image [ms]; None if nothing was timed.
        images: Number of images.
        risk: Tolerated disagreement or excess error, where one was asked for.
        settings: Of the method by name, the budget not among them; None for rows that have none.
    """

    method: str
    policy: str
    budget: float
    work: float
    work_max: float
    miou: float | None
    iou: dict[str, float | None]
    pixel_accuracy: float | None
    boundary_f: float | None
    agreement: float | None
    disagreement: float | None = None
    excess_error: float | None = None
    macs: int
    ms: float | None
    images: int
    risk: float | None = None
    settings: dict[str, SettingValue] | None = None
