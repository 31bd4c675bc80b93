"""A row of the review: one method at one budget, in everything that a review asks about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from foveal.calibration.curves import Point, pareto, quality_at
from foveal.evaluation.rows import EvalRow
from foveal.evaluation.video import VideoRow
from studies.review.cases import ORACLE, Case

STATIC, DENSE, OTHER = "static", "dense", "another network"
"""Names of rows of whole images."""


@dataclass(frozen=True, kw_only=True)
class ReviewRow:
    """What was measured of a method at a budget. All shares are 0..1; None is what was not measured.

    Attributes:
        method: What it is called in tables.
        name: Name of the method in the package; "dense" or "static" for the whole image.
        control: Whether it is no method, but what methods are held to.
        decides_for: The smallest thing that work is spent on or not.
        decides_from: What the decision looks at.
        training: What must be trained before it runs.
        budget: Work that was asked for, a share of its own dense network's.
        work: Mean work.
        over: Largest work of an image above its budget; below 0 where all stay below.
        miou: Mean IoU.
        lost: mIoU below its own dense network.
        beside_static: mIoU above the whole image shrunk, at equal work.
        in_time: mIoU above the whole image shrunk, at equal milliseconds.
        to_oracle: mIoU below tiles that are chosen by the labels, at equal budget.
        ms: Median time of an image [ms].
        faster: Time of its own dense network over its own.
        kept: Share of the saved work that is saved time.
        steady: Share of the pixels with one answer in all moved views of an image.
        flicker: Share of the pixels that change their label while the truth does not.
        peak_mb: Peak memory of a run [MB].
        program: Whether a compiled program runs it, or PyTorch layer by layer.
        apart: Whether its network is of another kind than the others': shares of work cannot be compared.
    """

    method: str
    name: str
    control: bool
    decides_for: str
    decides_from: str
    training: str
    budget: float
    work: float
    over: float | None
    miou: float | None
    lost: float | None = None
    beside_static: float | None = None
    in_time: float | None = None
    to_oracle: float | None = None
    ms: float | None = None
    faster: float | None = None
    kept: float | None = None
    steady: float | None = None
    flicker: float | None = None
    peak_mb: float | None = None
    program: bool = True
    apart: bool = False


def row_of(case: Case, found: EvalRow, dense: EvalRow, compiled: bool) -> ReviewRow:
    """Make a row of what an evaluation found of a case, beside the dense network of that case."""
    faster = None if found.ms is None or dense.ms is None else dense.ms / found.ms
    saved = 1 - found.work
    return ReviewRow(
        method=case.title,
        name=case.method,
        control=case.control,
        decides_for=case.kind.decides_for,
        decides_from=case.kind.decides_from,
        training=case.training,
        budget=found.budget,
        work=found.work,
        over=round(found.work_max - found.budget, 4),
        miou=found.miou,
        lost=_minus(dense.miou, found.miou),
        ms=found.ms,
        faster=None if faster is None else round(faster, 3),
        kept=None if faster is None or saved < 0.01 else round((1 - 1 / faster) / saved, 3),
        flicker=found.flicker if isinstance(found, VideoRow) else None,
        program=compiled,
        apart=case.apart,
    )


def whole_row(name: str, title: str, found: EvalRow, dense: EvalRow, compiled: bool) -> ReviewRow:
    """Make a row of a network on whole images, shrunk or not."""
    return ReviewRow(
        method=title,
        name=name,
        control=True,
        decides_for="nothing",
        decides_from="nothing",
        training="nothing",
        budget=found.budget,
        work=found.work,
        over=None,
        miou=found.miou,
        lost=None if found is dense else _minus(dense.miou, found.miou),
        ms=found.ms,
        faster=None if found.ms is None or dense.ms is None else round(dense.ms / found.ms, 3),
        flicker=found.flicker if isinstance(found, VideoRow) else None,
        program=compiled,
    )


def compared(rows: Sequence[ReviewRow]) -> list[ReviewRow]:
    """Fill in how rows stand beside whole images at equal work and time, and beside the oracle."""
    whole = [row for row in rows if row.name in (STATIC, DENSE) and row.miou is not None]
    by_work = pareto(Point(row.work, row.miou or 0.0) for row in whole)
    by_time = pareto(Point(row.ms, row.miou or 0.0) for row in whole if row.ms is not None)
    best = {row.budget: row.miou for row in rows if row.method == ORACLE}
    return [_beside(row, by_work, by_time, best) for row in rows]


def _beside(
    row: ReviewRow,
    by_work: Sequence[Point],
    by_time: Sequence[Point],
    best: Mapping[float, float | None],
) -> ReviewRow:
    if row.name in (STATIC, DENSE, OTHER):
        return row
    in_time = None if row.ms is None else quality_at(by_time, row.ms)
    if row.apart:  # its work is a share of another network's
        return replace(row, in_time=_minus(row.miou, in_time))
    return replace(
        row,
        beside_static=_minus(row.miou, quality_at(by_work, row.work)),
        in_time=_minus(row.miou, in_time),
        to_oracle=None if row.method == ORACLE else _minus(best.get(row.budget), row.miou),
    )


def in_order(rows: Iterable[ReviewRow]) -> list[ReviewRow]:
    """Put whole images first, then methods, then what they are held to; each by work."""
    return sorted(
        rows, key=lambda row: (row.name not in (DENSE, STATIC), row.apart or row.name == OTHER, row.control)
    )


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else round(a - b, 5)
