"""Tables of docs/dynamic-decoders.md, from the JSON files in benchmarks/decoders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks" / "decoders"
KINDS = {
    "nrd": "patches (NRD)",
    "points": "points (PointRend)",
    "points_s8": "points, coarse answer at stride 8",
}
OTHERS = {
    "dense": "dense",
    "static": "whole image reduced",
    "coarse_to_fine": "coarse to fine",
    "segblocks": "SegBlocks, tiles at random",
}
"""What rows of other methods are called; the order of the table is that of the files."""
Row = dict[str, Any]


def refining() -> str:
    """Return quality of the decoders on the test images, with the controls, a row each."""
    found = [
        _line(row, name)
        for kind, name in KINDS.items()
        for row in json.loads((FOLDER / f"camvid_rn18_{kind}.json").read_text())["rows"]
    ]
    head = ["| method | budget | work | mIoU | boundary F | agreement |", "|---|---|---|---|---|---|"]
    return "\n".join([*head, *dict.fromkeys(found)])


def _line(row: Row, kind: str) -> str:
    title = OTHERS.get(row["method"], kind)
    if row["method"] == "dynamic_decoder" and row["policy"] == "random":
        title = f"{kind}, at random"
    budget = "" if row["method"] in ("dense", "static") else f"{row['budget']:g}"
    scores = " | ".join(f"{100 * row[key]:.1f}" for key in ("miou", "boundary_f", "agreement"))
    figures = f"{row['work']:.3f} | {scores} %"
    return f"| {title} | {budget} | {figures} |"
