"""Tables of docs/routing.md, from the JSON files in benchmarks/routing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks" / "routing"
NAMES = {
    "gates": "**routing**",
    "usual": "one route for all images, the usual paths",
    "random": "paths at random",
}
NETWORKS = {
    "fcn32s": "FCN-32s",
    "deeplabv3": "DeepLabV3",
    "unet": "U-Net",
    "hrnetv2": "HRNetV2",
    "auto_deeplab": "Auto-DeepLab",
}
Row = dict[str, Any]


def read(name: str) -> dict[str, Any]:
    """Read a file of results."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def title(row: Row) -> str:
    """Name what a row is about."""
    settings = row.get("settings") or {}
    route = settings.get("route", "")
    if row["method"] != "routing":
        others = {"dense": "dense, all paths open", "static": "whole image reduced"}
        return others.get(row["method"], "SegBlocks, tiles at random")
    if settings.get("threshold") is not None:
        return "**routing**, as much as the gates want"
    return NAMES.get(route) or f"{NETWORKS[route]} as a fixed route"


def routed() -> str:
    """Return quality of routes on the test images, beside controls of the same budgets."""
    rows = read("camvid_lattice8")["rows"]
    lines = ["| method | budget | work | MMAC | mIoU | agreement |", "|---|---|---|---|---|---|"]
    seen_dense = False
    for row in rows:
        if row["method"] == "dense" and seen_dense:
            continue
        seen_dense = True
        fixed = row["method"] in ("dense", "static") or row["budget"] >= 1
        figures = f"{row['work']:.3f} | {row['macs'] / 1e6:.0f} | {100 * row['miou']:.1f}"
        lines.append(
            f"| {title(row)} | {'' if fixed else format(row['budget'], 'g')} | {figures} | "
            f"{100 * row['agreement']:.1f} % |"
        )
    return "\n".join([*lines, "", f"{rows[0]['images']} images."])


def settings() -> str:
    """Return what gates of the paper's settings spend, trained slowly and fast."""
    head = "| setting | weight | aim | learning rate | expected share | work | mIoU |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    for name in ("settings", "settings_fast"):
        found = read(name)
        for row in found["rows"]:
            asked = f"{row['budget_weight']:g} | {row['budget']:g} | {found['learning_rate']:g}"
            start = f"{row['setting']} | {asked}"
            figures = f"{row['expected_share']:.2f} | {row['work']:.3f} | {100 * row['miou']:.1f}"
            lines.append(f"| {start} | {figures} |")
    return "\n".join(lines)


def published() -> str:
    """Return MACs of the published settings beside the published figures."""
    lines = [
        "| setting | paper, second run [GFLOP] | all open [GMAC] | as published | open, implied |",
        "|---|---|---|---|---|",
    ]
    for row in read("macs")["rows"]:
        shares = ", ".join(f"{share:.2f}" for share in row["implied_open_share"])
        figures = f"{row['all_open_gmacs']:.1f} | {row['all_open_as_published']:.1f} | {shares}"
        lines.append(f"| {row['setting']} | {row['paper_gflops']}, {row['again_gflops']} | {figures} |")
    return "\n".join(lines)
