"""Milliseconds of methods beside their network dense, in our program and in OpenVINO."""

from __future__ import annotations

import json
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


def speeds(group: str) -> str:
    """Show the rows of `method_speed.py` for a group of methods."""
    found = json.loads((FOLDER / group / "speed.json").read_text())
    static = found["openvino_ms"]
    lines = [
        "| what | budget | settings | work | ms | p95 | over OpenVINO | over our own dense program |",
        "|---|---|---|---|---|---|---|---|",
    ]
    if static:
        lines.append(f"| dense, OpenVINO |  |  | 1.000 | {static:.1f} |  | 1.00 |  |")
    for row in found["rows"]:
        dense = row["method"].startswith("dense, ")
        settings = ", ".join(f"{key} {value}" for key, value in row["settings"].items())
        name = row["method"] if dense else f"{row['method'].replace('_', ' ')} ({row['model']})"
        beside = (row["times_faster_than_openvino"], row["times_faster_than_program"])
        over = " | ".join(f"{ratio:.2f}" if ratio else "-" for ratio in beside)
        budget = "" if dense else f"{row['budget']:g}"
        numbers = f"{row['work']:.3f} | {row['ms']:.1f} | {row['p95_ms']:.1f}"
        lines.append(f"| {name} | {budget} | {settings} | {numbers} | {over} |")
    machine = f"{found['machine']}, {found['threads']} threads"
    return "\n".join(lines) + f"\n\n{machine}; medians of runs in turns, f32, 960x720."
