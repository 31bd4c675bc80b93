"""Rows of several seeds as one row each, with mean and standard deviation."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from studies.segblocks.study import Row, Rows


def over_seeds(repeats: Sequence[Rows]) -> Rows:
    """Join rows that `foveal.evaluation.evaluate` returned for several seeds, in the same order each time.

    Returns:
        Rows with the keys method, policy, budget, work, gmacs, miou, miou_std, agreement, boundary_f, ms and
        images_s (from the first repeat that was timed; None if none was), seeds.
    """
    return [_joined(rows) for rows in zip(*repeats, strict=True)]


def mean_of(values: Sequence[float | None]) -> float | None:
    """Mean of what is known; None if nothing is."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _joined(rows: Sequence[Row]) -> dict[str, Any]:
    first, quality = rows[0], [row["miou"] for row in rows]
    ms = next((row["ms"] for row in rows if row["ms"] is not None), None)
    return {
        **{key: first[key] for key in ("method", "policy", "budget")},
        "work": round(fmean(row["work"] for row in rows), 4),
        "gmacs": round(fmean(row["macs"] for row in rows) / 1e9, 3),
        "miou": round(fmean(quality), 4),
        "miou_std": round(stdev(quality), 4) if len(rows) > 1 else None,
        "agreement": round(fmean(row["agreement"] for row in rows), 4),
        "boundary_f": round(fmean(row["boundary_f"] for row in rows), 4),
        "ms": ms,
        "images_s": None if ms is None else round(1000 / ms, 2),
        "images": first["images"],
        "seeds": len(rows),
    }
