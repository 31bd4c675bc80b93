"""Tables of docs/exits-and-cascades.md, from the JSON files in benchmarks/exits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks" / "exits"
BUDGETS = (0.3, 0.5, 0.7)
ALONE = 2
"""Place of the command of `model_select.json` that is given no small network."""
SETTLED = {"coarse": "settled at level 2", "vanish": "settled vanishes"}
Row = dict[str, Any]


def commands(name: str) -> list[list[Row]]:
    """Return the rows of a file by command: each begins with the dense network."""
    found: list[list[Row]] = []
    for row in json.loads((FOLDER / f"{name}.json").read_text())["rows"]:
        if row["method"] == "dense":
            found.append([])
        found[-1].append(row)
    return found


def title(row: Row, alone: bool) -> str:
    """Name what a row is about."""
    if row["method"] != "model_select":
        shown = {"coarse_to_fine": "coarse to fine", "static": "whole image reduced"}
        return shown.get(row["method"], "SegBlocks, tiles at random")
    settings = row["settings"]
    if settings["fusion"] != "replace":
        return {"sharper": "the lower entropy wins", "gated": "a trained gate weighs both"}[
            settings["fusion"]
        ]
    if alone:
        return "no small network, the large one reduced by 4"
    if row["policy"] == "random":
        return "regions at random"
    if settings["context"] == "skip":
        seen = "a margin of one tile" if settings["margin_tiles"] else "nothing"
        return f"the large network sees {seen} around"
    return "**model selection**"


def selection() -> str:
    """Return quality and agreement with the large network, a row each, for every budget."""
    groups = [*commands("model_select"), *commands("model_select_gate")]
    found: dict[str, dict[float, Row]] = {}
    for place, group in enumerate(groups):
        for row in group[1:]:
            budget = row["work"] if row["method"] == "static" else row["budget"]
            found.setdefault(title(row, place == ALONE), {})[round(budget, 1)] = row
    shown = " | ".join(f"{budget:g}: mIoU | agreement" for budget in BUDGETS)
    lines = [f"| work | {shown} |", "|---" * (1 + 2 * len(BUDGETS)) + "|"]
    for name, rows in found.items():
        lines.append(_quality_row(name, [rows[b] for b in BUDGETS]))
    large, small = groups[0][0], groups[ALONE + 2][0]
    share = small["macs"] / large["macs"]
    alone, whole = (f"{100 * row['miou']:.1f} mIoU" for row in (small, large))
    said = f"The small network alone has {alone} at {share:.1%} of the work, the large one {whole}; "
    return "\n".join([*lines, "", f"{said}{large['images']} images."])


def selection_context() -> str:
    """Return what the large network's coarse view of the rest brings on the val images, beside controls."""
    group = commands("model_select_context")[0]
    chosen = [row for row in group if row["method"] == "model_select"]
    found = {(row["settings"]["context"], row["budget"]): row for row in chosen}
    shown = " | ".join(f"{budget:g}: mIoU | agreement" for budget in BUDGETS)
    lines = [f"| beyond the regions | {shown} |", "|---" * (1 + 2 * len(BUDGETS)) + "|"]
    for context, name in (("skip", "nothing"), ("coarse", "the rest at level 2")):
        rows = [found[context, budget] for budget in BUDGETS]
        lines.append(_quality_row(name, rows))
    for method in ("segblocks", "static"):
        rows = [row for row in group if row["method"] == method]
        lines.append(_quality_row(title(rows[0], alone=False), rows))
    return "\n".join(lines)


def _quality_row(name: str, rows: list[Row]) -> str:
    cells = [f"{100 * row['miou']:.1f} | {100 * row['agreement']:.1f} %" for row in rows]
    return f"| {name} | {' | '.join(cells)} |"


def searched() -> str:
    """Return what every exit is worth by itself on the val images, and the best ways for every budget."""
    found, *controls = json.loads((FOLDER / "search_val.json").read_text())["rows"]
    head = (
        "exit",
        "after",
        "work",
        "mIoU",
        "temperature",
        "calibration error",
        "divided by it",
        "error of the surest 80 %",
    )
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in found["exits"]:
        figures = [row["calibration_error"], row["calibrated_error"], row["risk"]["0.8"]]
        cells = [
            str(row["exit"]),
            row["place"] or "the end",
            f"{row['work']:.3f}",
            f"{100 * row['miou']:.1f}",
        ]
        cells += [f"{row['temperature']:.2f}", *(f"{100 * x:.1f} %" for x in figures)]
        lines.append(f"| {' | '.join(cells)} |")
    budgets = sorted({row["budget"] for row in found["rows"] if row["mode"] == "input"})
    lines += [
        "",
        f"| budget, in the mean | {' | '.join(f'{b:g}' for b in budgets)} |",
        "|---" * (1 + len(budgets)) + "|",
    ]
    for mode, name in (("fixed", "one exit for all"), ("input", "by input")):
        rows = {row["budget"]: row for row in found["rows"] if row["mode"] == mode}
        cells = [f"{100 * rows[b]['miou']:.1f}" if b in rows else "" for b in budgets]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for method in ("coarse_to_fine", "segblocks", "static"):
        rows = {row["budget"]: row for row in controls if row["method"] == method}
        cells = [f"{100 * rows[b]['miou']:.1f}" for b in budgets]
        lines.append(f"| {title(rows[budgets[0]], alone=False)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def leaving() -> str:
    """Return quality of leaving a network early on the test images, with the controls, a row each."""
    files = ("camvid_rn18", "camvid_rn18_fixed", "camvid_rn18_cascade")
    groups = [group for name in files for group in commands(name)]
    lines = ["| method | budget | work | mIoU | agreement |", "|---|---|---|---|---|"]
    for place, group in enumerate(groups):
        for row in group[0 if place == 0 else 1 :]:
            lines.append(_leaving_row(row))
    return "\n".join(lines)


def _leaving_row(row: Row) -> str:
    settings = row.get("settings") or {}
    exits = f", exit {settings['exits']}" if settings.get("exits") else ""
    names = {
        "dense": "dense",
        "mess": f"MESS by input{exits}" if settings.get("threshold") else "MESS, one exit for all",
        "layer_cascade": f"Layer Cascade{exits}, {SETTLED.get(settings.get('settled', ''), '')}",
        "coarse_to_fine": "coarse to fine",
        "static": "whole image reduced",
        "segblocks": "SegBlocks, tiles at random",
    }
    budget = "" if row["method"] in ("dense", "static") else f"{row['budget']:g}"
    figures = f"{row['work']:.3f} | {100 * row['miou']:.1f} | {100 * row['agreement']:.1f} %"
    return f"| {names[row['method']]} | {budget} | {figures} |"


def weeds() -> str:
    """Return quality over work on fine, sparse content: means over the networks that were measured."""
    names = {"mess": "MESS, one exit for all", "layer_cascade": "Layer Cascade, exit 3"}
    found: dict[tuple[str, float], list[Row]] = {}
    for path in sorted(FOLDER.glob("cwfid_rn18_*.json")):
        for row in json.loads(path.read_text())["rows"]:
            name = names.get(row["method"]) or title(row, alone=False)
            key = ("dense", 1.0) if row["method"] == "dense" else (name, row["budget"])
            found.setdefault(key, []).append(row)
    lines = ["| method | budget | work | mIoU |", "|---|---|---|---|"]
    for (name, budget), rows in found.items():
        work, miou = (sum(row[key] for row in rows) / len(rows) for key in ("work", "miou"))
        lines.append(f"| {name} | {budget:g} | {work:.3f} | {100 * miou:.1f} |")
    return "\n".join(lines)
