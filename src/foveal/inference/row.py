"""The row of one segmented image: what `foveal segment --json` prints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from foveal.calibration.profile import Risk
from foveal.inference.result import Result, level_shares
from foveal.storage.labels import VOID


@dataclass(frozen=True)
class RiskRow:
    """What keeps a risk.

    Attributes:
        threshold: Gain per tile from which a tile is refined; None if only the dense network keeps it.
        work: Mean work, a share of the dense network's.
        bound: Bound of the expected loss.
        share: Share of the images that are adapted; the others run dense.
        risk_of: What the loss is of: "dense" or "labels".
    """

    threshold: float | None
    work: float
    bound: float
    share: float
    risk_of: str


@dataclass(frozen=True, kw_only=True)
class SegmentRow:
    """One segmented image and its cost. In JSON a field whose default is None is left out while it is None.

    Attributes:
        image: File of the image.
        size: Height and width [px].
        work: Share of the dense network's work, the decision included.
        macs: Multiply-accumulates that ran [MAC].
        dense_macs: Those of the dense network [MAC].
        ms: Median time up to the labels [ms].
        ms_p95: 95th percentile [ms]; with a comparison.
        dense_ms: Median time of the dense network [ms]; with a comparison.
        dense_ms_p95: Its 95th percentile [ms]; with a comparison.
        agreement: Share of the pixels with the dense network's label; with a comparison.
        adaptive_ms: Median time of the method where the dense network was chosen [ms]; with a comparison.
        dense: Whether the dense network ran.
        reason: Why it did.
        budget: Share of the dense work that could be spent.
        latency: Time that was asked for [ms].
        predicted_ms: Time that the cost model predicts [ms].
        scale: Share of the sides that the image was shrunk to first; where that is below 1.
        chosen: Who chose the settings, and why; where `foveal tune` did.
        risk: Disagreement that was tolerated.
        estimate: Estimated disagreement of this image.
        setting: What keeps the risk.
        levels: Share of the cells at every level.
        classes: Share of the labelled pixels of every class that occurs, largest first.
        files: Pictures that were written, by kind.
        route: Weights of the paths that were taken through a lattice; for a method that routes.
        accuracy: Share of the pixels with the true label, where that is known.
        dense_accuracy: That of the dense network.
    """

    image: str
    size: tuple[int, int]
    work: float
    macs: int
    dense_macs: int
    ms: float
    ms_p95: float | None = None
    dense_ms: float | None = None
    dense_ms_p95: float | None = None
    agreement: float | None = None
    adaptive_ms: float | None = None
    dense: bool
    reason: str | None
    budget: float
    latency: float | None
    predicted_ms: float | None
    scale: float | None = None
    chosen: str | None = None
    risk: float | None
    estimate: float | None
    setting: RiskRow | None
    levels: dict[str, float]
    classes: dict[str, float]
    files: dict[str, str]
    route: dict[str, Any] | None = None
    accuracy: float | None = None
    dense_accuracy: float | None = None


def segment_row(path: Path, result: Result, files: Mapping[str, Path], classes: Sequence[str]) -> SegmentRow:
    """Describe the result of one image.

    Args:
        path: File of the image.
        result: What the network said.
        files: Pictures that were written, by kind.
        classes: Names of the classes, by id.
    """
    choice, dense, beside = result.choice, result.dense_timing, result.method_timing
    return SegmentRow(
        image=str(path),
        size=result.size,
        work=round(result.work, 4),
        macs=result.macs,
        dense_macs=result.dense_macs,
        ms=round(result.timing.median, 2),
        ms_p95=round(result.timing.p95, 2) if dense else None,
        dense_ms=round(dense.median, 2) if dense else None,
        dense_ms_p95=round(dense.p95, 2) if dense else None,
        agreement=_rounded(result.agreement, 5),
        adaptive_ms=round(beside.median, 2) if beside else None,
        dense=bool(result.reason),
        reason=result.reason or None,
        budget=choice.budget,
        latency=choice.latency,
        predicted_ms=_rounded(choice.predicted_ms, 2),
        scale=result.scale if result.scale < 1 else None,
        chosen=result.chosen or None,
        risk=None if result.risk is None else result.risk.allowed,
        estimate=_rounded(result.estimate, 5),
        setting=_risk_row(result.risk),
        levels={str(level): round(share, 4) for level, share in level_shares(result.levels).items()},
        classes={name: round(share, 4) for name, share in class_shares(result, classes)},
        files={kind: str(file) for kind, file in files.items()},
        route=None if result.route is None else result.route.as_json(),
    )


def class_shares(result: Result, classes: Sequence[str]) -> list[tuple[str, float]]:
    """Return the classes that occur in the labels and their share of the labelled pixels, largest first.

    Raises:
        ValueError: A label is beyond the classes.
    """
    labels = result.labels[result.labels != VOID]
    counts = torch.bincount(labels.int(), minlength=len(classes)).tolist()
    if len(counts) > len(classes):
        raise ValueError(
            f"labels go up to {len(counts) - 1} and there are {len(classes)} classes; give a name for each"
        )
    total = max(1, labels.numel())
    found = [(name, count / total) for name, count in zip(classes, counts, strict=True) if count]
    return sorted(found, key=lambda pair: -pair[1])


def _risk_row(risk: Risk | None) -> RiskRow | None:
    if risk is None:
        return None
    setting = risk.setting
    threshold = setting.threshold if math.isfinite(setting.threshold) else None
    numbers = round(setting.work, 4), round(setting.bound, 5), setting.share
    return RiskRow(threshold, *numbers, risk.profile.risk_of)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
