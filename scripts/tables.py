"""Write the tables of README.md and docs/ from the JSON files in benchmarks/."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from closer_tables import TABLES

from foveal.storage.atomic import write_atomically

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"


def camvid() -> str:
    rows = json.loads((BENCHMARKS / "camvid_rn18" / "test.json").read_text())["rows"]
    lines = [
        "| method | policy | budget | work | mIoU | agreement | GMAC | ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        budget = f"{row['budget']:g}" if row["policy"] else ""
        lines.append(
            f"| {row['method']} | {row['policy']} | {budget} | {row['work']:.3f} | {100 * row['miou']:.1f} | "
            f"{100 * row['agreement']:.1f} % | {row['macs'] / 1e9:.2f} | {row['ms']:.0f} |"
        )
    return "\n".join(lines)


def segment() -> str:
    rows = json.loads((BENCHMARKS / "camvid_rn18" / "segment.json").read_text())["rows"]
    lines = ["| budget | work | GMAC of dense | ms | dense ms | agreement |", "|---|---|---|---|---|---|"]
    for row in rows:
        lines.append(
            f"| {row['budget']:g} | {row['work']:.3f} | "
            f"{row['macs'] / 1e9:.1f} of {row['dense_macs'] / 1e9:.1f} | "
            f"{row['ms']:.0f} | {row['dense_ms']:.0f} | {100 * row['agreement']:.1f} % |"
        )
    return "\n".join(lines)


def cpu() -> str:
    lines = [
        "| network, image | precision | fastest static runtime | work | ms | speed-up | eta |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in ("rn18_1024x2048", "camvid_rn18_720x960", "mobilenetv2_720x960"):
        row = json.loads((BENCHMARKS / "cpu" / f"{name}.json").read_text())
        start = f"{row['model']}, {row['size'][0]}x{row['size'][1]}"
        for precision, best in row["best_static"].items():
            rival = f"{precision} | {best['runtime']}, {best['ms']:.0f} ms"
            for found in (each for each in row["adaptive"] if each["precision"] == precision):
                lines.append(
                    f"| {start} | {rival} | {found['work']:.2f} | {found['ms']:.0f} | "
                    f"{found['speedup']:.2f} | {found['eta']:.2f} |"
                )
                start, rival = "", " | "
    return "\n".join(lines)


def fill(path: Path, makers: Mapping[str, Callable[[], str]]) -> None:
    """Write every table between its marks."""
    text = path.read_text()
    for name, make in makers.items():
        pattern = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = pattern.sub(lambda found, make=make: f"{found[1]}{make()}\n{found[2]}", text)
    write_atomically(path, text)


def main() -> None:
    fill(ROOT / "README.md", {"camvid": camvid, "segment": segment, "cpu": cpu, **TABLES})
    fill(ROOT / "docs" / "coarse-to-fine.md", TABLES)


if __name__ == "__main__":
    main()
