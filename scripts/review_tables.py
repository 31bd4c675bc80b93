"""Tables of docs/review.md, from the JSON files in benchmarks/review."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks" / "review"
Row = dict[str, Any]
COLUMNS = {
    "method": "method",
    "budget": "budget",
    "work": "work",
    "over": "most above budget",
    "miou": "mIoU",
    "beside_static": "above shrunk: work",
    "in_time": "time",
    "to_oracle": "below oracle",
    "ms": "ms",
    "faster": "faster",
    "kept": "kept",
    "steady": "steady",
    "flicker": "flicker",
    "peak_mb": "MB",
}
"""Keys of rows, and heads of their columns."""
FORMS = {"work": ".3f", "over": "+.3f", "ms": ".1f", "faster": ".2f", "kept": ".2f", "peak_mb": ".0f"}
POINTS = {
    "miou": ".1f",
    "beside_static": "+.1f",
    "in_time": "+.1f",
    "to_oracle": "+.1f",
    "steady": ".1f",
    "flicker": ".2f",
}
"""Shares that are shown in percent, or points of it."""


def scene(name: str) -> str:
    """Return the table of a scene; columns that no row has are left out."""
    found = json.loads((FOLDER / f"{name}.json").read_text())
    rows: list[Row] = found["rows"]
    keys = [key for key in COLUMNS if any(row.get(key) is not None for row in rows)]
    lines = [f"| {' | '.join(COLUMNS[key] for key in keys)} |", "|---" * len(keys) + "|"]
    lines += [f"| {' | '.join(cell(row, key) for key in keys)} |" for row in rows]
    images = found["review"]["limit"] if name != "video" else found["review"]["frames"]
    what = "frames" if name == "video" else "images"
    many = f"{images} {what}" if images else f"all {what}"
    where = f"{found['machine']}, {found['threads']} threads, f32"
    said = f"{many}; {where}; rows in *italics* are what methods are held to."
    return "\n".join([*lines, "", said])


def cell(row: Row, key: str) -> str:
    """Write a value; what was not measured is left empty."""
    value = row.get(key)
    if value is None:
        return ""
    if key == "method":
        return f"*{value}*" if row["control"] else str(value)
    if key == "budget":
        return "" if row["decides_for"] == "nothing" else f"{value:g}"
    if key in POINTS:
        return f"{100 * value:{POINTS[key]}}"
    return f"{value:{FORMS[key]}}"


REVIEW = {f"review_{name}": partial(scene, name) for name in ("street", "weeds", "video")}
"""Tables by name."""
