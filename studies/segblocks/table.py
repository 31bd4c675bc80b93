"""Rows as tables in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Columns = Mapping[str, object]
"""Values of a row by the key of their column."""

PERCENT = ("miou", "iou", "fine", "share", "agreement", "pixel_accuracy", "boundary_f", "pixels", "excess")
"""Beginnings of the keys whose values are shares that are read in percent."""
DECIMALS = {"ms": 1, "images_s": 2, "work": 3, "speedup": 2, "best_speedup": 2, "theoretical": 2, "eta": 2}
HEADS = {
    "miou": "mIoU [%]",
    "gmacs": "GMAC",
    "paper_gmacs": "GMAC in the paper",
    "policy_gmacs": "GMAC of the policy",
    "macs": "GMAC",
    "dense_macs": "dense GMAC",
    "peak_mb": "peak [MB]",
    "seconds": "time [s]",
    "pad_seconds": "time of borders [s]",
    "images_s": "images/s",
    "share_at_paper": "share at that [%]",
    "excess": "above the target [points]",
    "excess_by_rounding": "of it by rounding up [points]",
    "boundary_f": "boundary F [%]",
}
COUNTS = ("macs", "dense_macs")
"""Keys whose values are counted [MAC] and read in GMAC."""
SOURCE = "source"
"""Key that says where a row is from; it stands below the table."""
DEVIATION = "_std"
"""Ending of a key that belongs to the key before it: mean ± standard deviation."""


def markdown(rows: Sequence[Columns]) -> str:
    """Write rows as a table, sources below: a column per key of any row, but not for lists."""
    if not rows:
        return ""
    keys = [key for key in dict.fromkeys(key for row in rows for key in row) if _shown(key, rows)]
    lines = ["| " + " | ".join(_head(key) for key in keys) + " |", "|" + "---|" * len(keys)]
    lines += ["| " + " | ".join(cell(row, key) for key in keys) + " |" for row in rows]
    sources = dict.fromkeys(row[SOURCE] for row in rows if SOURCE in row)
    return "\n".join([*lines, *(f"\nSource: {source}." for source in sources)])


def cell(row: Columns, key: str) -> str:
    """Write a value for people: shares in percent, a dash for what is not known."""
    value, deviation = row.get(key), row.get(f"{key}{DEVIATION}")
    if value is None or isinstance(value, str):
        return value or "–"
    if deviation is not None:
        return f"{_number(key, value)} ± {_number(key, deviation)}"
    return _number(key, value)


def _number(key: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, float | int):
        return str(value)
    if _is_share(key):
        return f"{100 * value:.1f}"
    if key in COUNTS:
        return f"{value / 1e9:.4g}"
    if isinstance(value, int):
        return str(value)
    return f"{value:.{DECIMALS[key]}f}" if key in DECIMALS else f"{value:.4g}"


def _head(key: str) -> str:
    text = HEADS.get(key, key.replace("_", " "))
    return f"{text} [%]" if _is_share(key) and key not in HEADS else text


def _is_share(key: str) -> bool:
    return key.startswith(PERCENT)


def _shown(key: str, rows: Sequence[Columns]) -> bool:
    if key == SOURCE or key.endswith(DEVIATION):
        return False
    return not any(isinstance(row.get(key), list | dict) for row in rows)
