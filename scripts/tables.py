"""Write the tables of README.md and docs/ from the JSON files in benchmarks/."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from closer_tables import TABLES
from decoder_tables import refining
from dynconv_tables import dynconv, dynconv_speed
from exits_tables import leaving, searched, selection, selection_context, weeds
from review_tables import REVIEW
from rivals import rivals_text
from routing_tables import published, routed, settings
from speed_tables import speeds

from foveal.storage.atomic import write_atomically

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"


CPU = "camvid_rn18_1024x2048", "rn50_1024x2048", "camvid_rn18_720x960", "camvid_mobilenetv2_720x960"
"""Files of the table of speeds."""
NAMES = {
    "dense": "dense",
    "coarse_to_fine": "coarse to fine",
    "segblocks": "SegBlocks",
    "random": "random tiles",
    "static": "whole image reduced",
}


def camvid() -> str:
    """Quality on both sizes of the test images, one row per method and budget."""
    found: dict[tuple[str, str, float], dict[str, tuple[float, float, float]]] = {}
    for file in ("test", "full_test"):
        for row in json.loads((BENCHMARKS / "camvid_rn18" / f"{file}.json").read_text())["rows"]:
            method = "random" if row["policy"] == "random" else row["method"]
            policy = row["policy"] if method == "segblocks" else ""
            key = method, policy, round(row["work"] if method == "static" else row["budget"], 2)
            found.setdefault(key, {})[file] = row["work"], 100 * row["miou"], 100 * row["agreement"]
    lines = [
        "| method | policy | budget | 480x360: mIoU | agreement | 960x720: mIoU | agreement |",
        "|---|---|---|---|---|---|---|",
    ]
    order = list(NAMES)
    for method, policy, budget in sorted(found, key=lambda key: (order.index(key[0]), key[2])):
        cells = [
            f"{miou:.1f} | {agreement:.1f} %"
            for _, miou, agreement in (found[method, policy, budget][file] for file in ("test", "full_test"))
        ]
        shown = "" if method == "dense" else f"{budget:g}"
        lines.append(f"| {NAMES[method]} | {policy} | {shown} | {' | '.join(cells)} |")
    return "\n".join(lines)


def video() -> str:
    """Quality, flicker and work over two videos: one that drives, one that stands still."""
    rows = json.loads((BENCHMARKS / "video" / "camvid_rn18.json").read_text())["rows"]
    lines = [
        "| video | method | budget | work | after the first frame | mIoU | flicker | agreement |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        seen = "static camera" if row["images"] == min(r["images"] for r in rows) else "15 Hz, driving"
        name = row["method"] if row["method"] == "dense" else f"{row['method']}, {row['policy']}"
        works = " | ".join(f"{row[key]:.3f}" for key in ("work", "work_later"))
        scores = f"{100 * row['miou']:.1f} | {row['flicker']:.2%} | {row['agreement']:.1%}"
        lines.append(f"| {seen}, {row['images']} | {name} | {row['budget']:g} | {works} | {scores} |")
    return "\n".join(lines)


def segment() -> str:
    """Work and agreement on one street; its times are those of the table of speeds."""
    rows = json.loads((BENCHMARKS / "camvid_rn18" / "segment.json").read_text())["rows"]
    lines = ["| budget | work | GMAC of dense | agreement |", "|---|---|---|---|"]
    for row in rows:
        lines.append(
            f"| {row['budget']:g} | {row['work']:.3f} | "
            f"{row['macs'] / 1e9:.1f} of {row['dense_macs'] / 1e9:.1f} | {100 * row['agreement']:.1f} % |"
        )
    return "\n".join(lines)


def cpu() -> str:
    """Times beside the fastest static runtime, and beside our own dense network in the same precision."""
    lines = [
        "| network, image | precision | fastest static | work | ms | over it | over our own dense | eta |",
        "|---|---|---|---|---|---|---|---|",
    ]
    results = [json.loads((BENCHMARKS / "cpu" / f"{name}.json").read_text()) for name in CPU]
    for row in results:
        start = f"{row['model']}, {row['size'][0]}x{row['size'][1]}"
        for precision, best in row["best_static"].items():
            rival = f"{precision} | {best['runtime']}, {best['ms']:.0f} ms"
            rows = [each for each in row["adaptive"] if each["precision"] == precision]
            dense = next(each["ms"] for each in rows if each["work"] >= 1)
            for found in rows:
                lines.append(
                    f"| {start} | {rival} | {found['work']:.2f} | {found['ms']:.0f} | "
                    f"{found['speedup']:.2f} | {dense / found['ms']:.2f} | {found['eta']:.2f} |"
                )
                start, rival = "", " | "
    return "\n".join([*lines, "", rivals_text(results)])


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
    fill(ROOT / "docs" / "video.md", {"video": video})
    fill(ROOT / "docs" / "review.md", REVIEW)
    fill(
        ROOT / "docs" / "dynamic-decoders.md",
        {"refining": refining, "decoders_speed": partial(speeds, "decoders")},
    )
    fill(ROOT / "docs" / "dynconv.md", {"dynconv": dynconv, "dynconv_speed": dynconv_speed})
    fill(
        ROOT / "docs" / "exits-and-cascades.md",
        {
            "searched": searched,
            "leaving": leaving,
            "weeds": weeds,
            "exits_speed": partial(speeds, "exits"),
            "selection": selection,
            "selection_context": selection_context,
        },
    )
    fill(
        ROOT / "docs" / "routing.md",
        {
            "routed": routed,
            "routed_settings": settings,
            "published": published,
            "routed_speed": partial(speeds, "routing"),
        },
    )


if __name__ == "__main__":
    main()
