"""Tables of docs/dynamic-decoders.md, from the JSON files in benchmarks/decoders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks" / "decoders"
KINDS = {"nrd": "patches (NRD)", "points": "points (PointRend)"}
OTHERS = {"dense": "dense", "static": "whole image reduced", "coarse_to_fine": "coarse to fine"}
Row = dict[str, Any]


def refining() -> str:
    """Return quality of both decoders on the test images, with the controls, a row each."""
    lines = ["| method | budget | work | mIoU | agreement |", "|---|---|---|---|---|"]
    shown = set()
    for kind, name in KINDS.items():
        for row in json.loads((FOLDER / f"camvid_rn18_{kind}.json").read_text())["rows"]:
            line = _line(row, name)
            if line not in shown:
                shown.add(line)
                lines.append(line)
    return "\n".join(lines)


def _line(row: Row, kind: str) -> str:
    title = OTHERS.get(row["method"], kind)
    if row["method"] == "dynamic_decoder" and row["policy"] == "random":
        title = f"{kind}, at random"
    budget = "" if row["method"] in ("dense", "static") else f"{row['budget']:g}"
    figures = f"{row['work']:.3f} | {100 * row['miou']:.1f} | {100 * row['agreement']:.1f} %"
    return f"| {title} | {budget} | {figures} |"
