"""Write docs/results.md from benchmarks/results: networks trained by the queue, and what they reach.

    python scripts/record.py benchmarks/results/NETWORK.json -- evaluate ...   # one file a network
    python scripts/results.py

Files that differ in the number at their end are seeds of one network; a table has their mean and deviation.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from foveal.storage.atomic import write_atomically

ROOT = Path(__file__).resolve().parent.parent
RESULTS, TRAINED = ROOT / "benchmarks" / "results", ROOT / "benchmarks" / "trained"
HEAD = """# Results

Written by `python scripts/results.py` from `benchmarks/results/*.json`, which name their commands. Networks
are those of `benchmarks/trained`: recipe, steps and log are beside their weights. mIoU on the test split
from one confusion matrix, void ignored; ± is the standard deviation over seeds. Every row was executed, and
work counts all passes. *Whole image reduced* is the dense network on the image reduced to that share of its
pixels. Times are in [benchmarks/frontier](../benchmarks/frontier), beside every static runtime.
"""
NAMES = {
    "coarse_to_fine": "coarse to fine",
    "segblocks": "SegBlocks",
    "static": "whole image reduced",
    "random": "random tiles",
}


@dataclass(frozen=True)
class Point:
    """mIoU of one method at one budget, over the seeds [points]."""

    method: str
    budget: float
    work: float
    values: tuple[float, ...]

    @property
    def text(self) -> str:
        """Mean, and the deviation where there are several seeds."""
        mean = f"{100 * fmean(self.values):.1f}"
        return mean if len(self.values) < 2 else f"{mean} ± {100 * stdev(self.values):.1f}"


def main() -> None:
    groups: dict[str, list[Path]] = {}
    for path in sorted(RESULTS.glob("*.json")):
        groups.setdefault(re.sub(r"_\d+$", "", path.stem), []).append(path)
    parts = [HEAD, *(section(name, paths) for name, paths in groups.items())]
    write_atomically(ROOT / "docs" / "results.md", "\n".join(parts))


def section(name: str, paths: list[Path]) -> str:
    """Write the table of one network over its seeds."""
    points = join([json.loads(path.read_text())["rows"] for path in paths])
    dense = next(point for point in points if point.method == "dense")
    budgets = sorted({point.budget for point in points if point.method != "dense"})
    methods = [m for m in dict.fromkeys(point.method for point in points) if m != "dense"]
    lines = [
        f"## {name}",
        "",
        f"{len(paths)} seed{'s' if len(paths) > 1 else ''}, {steps_of(paths[0].stem)} steps each. "
        f"Dense: **{dense.text}** mIoU.",
        "",
        "| work | " + " | ".join(NAMES.get(method, method) for method in methods) + " |",
        "|---|" + "---|" * len(methods),
    ]
    for budget in budgets:
        cells = [
            next((p.text for p in points if (p.method, p.budget) == (method, budget)), "")
            for method in methods
        ]
        lines.append(f"| {budget:.2f} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def join(runs: list[list[dict]]) -> list[Point]:
    """Put the rows of all seeds together."""
    found: dict[tuple[str, float], list[dict]] = {}
    for rows in runs:
        for row in rows:
            method = "random" if row["policy"] == "random" else row["method"]
            found.setdefault((method, round(row["budget"], 2)), []).append(row)
    return [
        Point(method, budget, fmean(row["work"] for row in rows), tuple(row["miou"] for row in rows))
        for (method, budget), rows in found.items()
    ]


def steps_of(stem: str) -> int:
    """Look up the steps of a training on its card."""
    return json.loads((TRAINED / f"{stem}.json").read_text())["training"]["recipe"]["train"]["steps"]


if __name__ == "__main__":
    main()
