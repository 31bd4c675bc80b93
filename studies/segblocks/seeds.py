"""Rows of several seeds as one row each, with mean and standard deviation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from foveal.evaluation.rows import EvalRow


@dataclass(frozen=True, kw_only=True)
class SeedsRow:
    """Means of one method over seeds.

    Attributes:
        method: Name of the method.
        policy: What decides.
        budget: Work that was asked for.
        work: Work, a share of the dense network's.
        gmacs: Work [GMAC].
        miou: Mean IoU, 0..1.
        miou_std: Its standard deviation; None for a single seed.
        agreement: Share of the pixels with the dense network's label.
        boundary_f: F score of the class boundaries, 0..1.
        ms: Time of an image in the first repeat that was timed [ms]; None if none was.
        images_s: Images a second at that.
        images: Number of images.
        seeds: Number of seeds.
    """

    method: str
    policy: str
    budget: float
    work: float
    gmacs: float
    miou: float
    miou_std: float | None
    agreement: float
    boundary_f: float | None
    ms: float | None
    images_s: float | None
    images: int
    seeds: int


def over_seeds(repeats: Sequence[Sequence[EvalRow]]) -> list[SeedsRow]:
    """Join rows that `foveal.evaluation.evaluate` returned for several seeds, in the same order each time.

    Raises:
        ValueError: No pixel of the images has a label.
    """
    return [_joined(rows) for rows in zip(*repeats, strict=True)]


def mean_of(values: Sequence[float | None]) -> float | None:
    """Mean of what is known; None if nothing is."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def rounded(value: float | None, digits: int = 4) -> float | None:
    """Round what is known."""
    return None if value is None else round(value, digits)


def _joined(rows: Sequence[EvalRow]) -> SeedsRow:
    first = rows[0]
    quality = [row.miou for row in rows if row.miou is not None]
    if len(quality) < len(rows):
        raise ValueError(
            f"no pixel of the {first.images} images has a label; give images with labels, or a higher --limit"
        )
    ms = next((row.ms for row in rows if row.ms is not None), None)
    return SeedsRow(
        method=first.method,
        policy=first.policy,
        budget=first.budget,
        work=round(fmean(row.work for row in rows), 4),
        gmacs=round(fmean(row.macs for row in rows) / 1e9, 3),
        miou=round(fmean(quality), 4),
        miou_std=round(stdev(quality), 4) if len(rows) > 1 else None,
        agreement=round(fmean(row.agreement for row in rows if row.agreement is not None), 4),
        boundary_f=rounded(mean_of([row.boundary_f for row in rows])),
        ms=ms,
        images_s=None if ms is None else round(1000 / ms, 2),
        images=first.images,
        seeds=len(rows),
    )
