"""Tables of docs/coarse-to-fine.md, from the JSON files in benchmarks/coarse_to_fine."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks" / "coarse_to_fine"
SEEDS = (0, 1, 2)
NAMES = {
    ("coarse_to_fine", "weighted_entropy"): "**coarse to fine**",
    ("coarse_to_fine", "random"): "coarse to fine, random choice",
    ("coarse_to_fine", "disagreement oracle"): "coarse to fine, disagreement oracle",
    ("segblocks", "detail"): "one shot, detail",
    ("segblocks", "thumbnail gain"): "one shot, thumbnail gain",
    ("static", ""): "whole image reduced",
}
KINDS = {"dense": "untouched", "closer": "fine-tuned"}
Row = dict[str, Any]


def rows(name: str) -> list[Row]:
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text())["rows"] if path.exists() else []


def key_of(row: Row) -> tuple[str, str]:
    return (row["method"], "" if row["method"] == "static" else row["policy"])


def grid(head: list[str], body: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def curves(kind: str, suffix: str = "") -> dict[tuple[str, str], dict[float, list[Row]]]:
    """Rows of all seeds by method and budget."""
    found: dict[tuple[str, str], dict[float, list[Row]]] = {}
    for seed in SEEDS:
        for row in rows(f"{kind}{seed}{suffix}"):
            found.setdefault(key_of(row), {}).setdefault(row["budget"], []).append(row)
    return found


def spread(values: list[float]) -> str:
    deviation = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * fmean(values):.1f}{deviation}"


def quality(suffix: str = "") -> str:
    body, budgets = [], (0.2, 0.3, 0.4, 0.55, 0.65)
    for kind, said in KINDS.items():
        found = curves(kind, suffix)
        if not found:
            continue
        dense = found["dense", ""][1.0]
        body.append([f"*{said}: dense*", *[""] * len(budgets), spread([r["miou"] for r in dense])])
        for key, name in NAMES.items():
            cells = [found.get(key, {}).get(budget, []) for budget in budgets]
            if any(cells):
                body.append([name, *(spread([r["miou"] for r in c]) if c else "" for c in cells), ""])
    works = [f"work {budget:g}" for budget in budgets]
    return grid(["", *works, "dense"], body)


def area_of(points: list[tuple[float, float]]) -> float:
    """Mean of mIoU over work in [0.2, 1], straight between the points, level before the first."""
    points = sorted(points)
    if points[0][0] > 0.2:
        points = [(0.2, points[0][1]), *points]
    inside = [(max(x, 0.2), y) for x, y in points]
    return sum((b - a) * (u + v) / 2 for (a, u), (b, v) in pairwise(inside)) / 0.8


def areas(kind: str, key: tuple[str, str]) -> dict[int, float]:
    out = {}
    for seed in SEEDS:
        found = rows(f"{kind}{seed}")
        chosen = [(r["work"], r["miou"]) for r in found if key_of(r) == key]
        if chosen:
            out[seed] = area_of([*chosen, (1.0, found[0]["miou"])])
    return out


def area() -> str:
    body = []
    for key, name in NAMES.items():
        cells = []
        for kind in KINDS:
            ours, low, high = (
                areas(kind, k)
                for k in (key, ("coarse_to_fine", "random"), ("coarse_to_fine", "disagreement oracle"))
            )
            way = [(ours[s] - low[s]) / (high[s] - low[s]) for s in high if s in ours and s in low]
            cells += [spread([*ours.values()]) if ours else "", f"{100 * fmean(way):.0f} %" if way else ""]
        body.append([name, *cells])
    head = [cell for said in KINDS.values() for cell in (f"area, {said}", "way to the oracle")]
    return grid(["", *head], body)


def learned() -> str:
    """Networks trained with a policy, at their own targets, beside one network for all."""
    path = FOLDER.parent / "segblocks" / "main_table.json"
    body = []
    for row in json.loads(path.read_text())["rows"] if path.exists() else []:
        deviation = f" ± {100 * row['miou_std']:.1f}" if row.get("miou_std") else ""
        target = f"target {row['target']:g}" if row.get("target") else ""
        name = ", ".join(
            part for part in ("trained with a policy" if target else "", row["network"], target) if part
        )
        body.append([name, f"{row['work']:.3f}", f"{100 * row['miou']:.1f}{deviation}"])
    for kind, said in KINDS.items():
        found = curves(kind).get(("coarse_to_fine", "weighted_entropy"), {})
        for budget in (0.4, 0.55, 0.65):
            if cells := found.get(budget):
                work = fmean(row["work"] for row in cells)
                name = f"coarse to fine, one network, {said}"
                body.append([name, f"{work:.3f}", spread([row["miou"] for row in cells])])
    return grid(["", "work", "mIoU"], body)


def context() -> str:
    found: dict[str, dict[float, Row]] = {}
    for row in rows("context"):
        found.setdefault(row["context"], {})[row["budget"]] = row
    budgets = (0.4, 0.55, 0.65)
    body = [
        [name, *(f"{100 * cells[b]['miou']:.1f} / {100 * cells[b]['agreement']:.1f}" for b in budgets)]
        for name, cells in found.items()
        if name != "dense"
    ]
    dense = found["dense"][1.0]["miou"] if found else 0
    head = [f"context (dense network: {100 * dense:.1f} mIoU)"]
    return grid([*head, *(f"work {b:g}: mIoU / agreement" for b in budgets)], body)


CONFORMAL = "conformal risk control"
QUARTER = "chosen by a quarter"
LOSSES = {"dense": "disagreement", "labels": "error beyond dense"}


def risk() -> str:
    """What is kept by the bound that is used, by kind of split."""
    body = [
        [
            row["data"],
            LOSSES[row["risk_of"]],
            row["split"],
            f"{row['alpha']:.1%}",
            f"{row['calibration']:.0f} / {row['test']:.0f}",
            f"{row['risk']:.2%}",
            f"{row['slack']:.2%}",
            f"{row['above']:.0%}",
            f"{row['share']:.0%}",
            f"{row['work']:.3f}",
        ]
        for row in rows("risk")
        if row["mixed"] == QUARTER and row["bound"] == CONFORMAL and row["alpha"] >= 0.01
        if row["risk_of"] == "dense" or row["split"] in ("random", "by drive")
    ]
    head = ["images", "loss", "split", "risk", "calibration / test", "mean realised", "slack", "splits above"]
    return grid([*head, "adapted", "work"], body)


def bounds() -> str:
    """Mean realised and work of every bound at 1 and 2 %, random halves and drives."""
    found: dict[tuple[str, str, str], dict[float, Row]] = {}
    for row in rows("risk"):
        if row["risk_of"] == "dense" and row["split"] in ("random", "by drive"):
            how = {"no": ", thresholds only", QUARTER: ""}.get(row["mixed"], f", mixed as {row['mixed']}")
            name = f"{row['bound']}{how}"
            found.setdefault((f"{row['data']}, {row['split']}", name, row["promise"]), {})[row["alpha"]] = row
    asked = (0.01, 0.02, 0.05)
    body = [
        [*key, *(_bound_cell(cells[alpha]) if alpha in cells else "refused" for alpha in asked)]
        for key, cells in found.items()
    ]
    head = ["split", "bound", "promise"]
    return grid([*head, *(f"risk {alpha:.0%}: realised, work, splits above" for alpha in asked)], body)


def _bound_cell(row: Row) -> str:
    return f"{row['risk']:.2%}, {row['work']:.3f}, {row['above']:.0%}"


def control(kind: str, cases: list[tuple[str, float]]) -> list[str]:
    """Return the cells of a control of the planners, of the same images and budgets."""
    found = {(row["model"], row["budget"]): row for row in rows("controls") if row["control"] == kind}
    return [f"{found[c]['miou']:.1f} / {100 * found[c]['agreement']:.1f}" for c in cases]


def planners() -> str:
    """Compare planners for tiles that gain more beside refined ones."""
    found = json.loads((FOLDER / "planners.json").read_text())
    cases = list(dict.fromkeys((row["model"], row["budget"]) for row in found["rows"]))
    head = ["planner", "of the best set, 4 x 4", "10^4 tiles, ms"]
    head += [f"{Path(model).stem} {budget:g}: mIoU / agreement" for model, budget in cases]
    body = []
    for name, one in found["planners"].items():
        rows = {(row["model"], row["budget"]): row for row in found["rows"] if row["planner"] == name}
        cells = [f"{rows[case]['miou']:.1f} / {100 * rows[case]['agreement']:.1f}" for case in cases]
        body.append([name, f"{one['share_of_best']:.1%}", f"{one['ms_10000']:.1f}", *cells])
    body.append(["*at random*", "", "", *control("random, direct", cases)])
    body.append(["*whole image reduced*", "", "", *control("reduced", cases)])
    return grid(head, body)


def by_level() -> str:
    """Compare steps in which the choice is compact, level by level."""
    found = json.loads((FOLDER / "planners.json").read_text())["by_level"]
    cases = list(dict.fromkeys((row["model"], row["budget"]) for row in found))
    head = ["compact in", *(f"{Path(model).stem} {budget:g}: mIoU / agreement" for model, budget in cases)]
    body = []
    for name in dict.fromkeys(row["planner"] for row in found):
        rows = {(row["model"], row["budget"]): row for row in found if row["planner"] == name}
        body.append([name, *(f"{rows[c]['miou']:.1f} / {100 * rows[c]['agreement']:.1f}" for c in cases)])
    body.append(["*tiles at random*", *control("random, levels", cases)])
    body.append(["*whole image reduced*", *control("reduced", cases)])
    return grid(head, body)


def neighbours() -> str:
    """Show what a refined tile loses of its disagreement, by its refined neighbours."""
    found = json.loads((FOLDER / "planners.json").read_text())["neighbours"]
    head = ["network, first pass", *(f"{k} of 8" for k in range(9)), "`isolated_gain`"]
    body = [
        [f"{Path(row['model']).stem}, level {row['level']}", *(f"{share:.0%}" for share in row["share_lost"])]
        + [f"{row['isolated_gain']:.2f}"]
        for row in found
    ]
    return grid(head, body)


def base_areas() -> str:
    """Show areas of what is chosen on other images, beside shrinking."""
    body = []
    for path in sorted(FOLDER.glob("areas_*.json")):
        one = json.loads(path.read_text())
        areas = one["areas"]
        gain = [areas["ours"] - areas[name] for name in ("shrunk", "shrunk_to_budget")]
        numbers = [f"{areas[name]:.1f}" for name in ("ours", "shrunk", "shrunk_to_budget")]
        least = min(row["ours"] - row["shrunk"] for row in one["rows"])
        body.append(
            [
                Path(one["model"]).stem,
                f"{one['data']}, {one['images']}",
                one["chosen_on"],
                f"{one['dense']:.1f}",
            ]
            + [*numbers, f"{gain[0]:+.1f} / {gain[1]:+.1f}", f"{least:+.1f}"]
        )
    head = ["network", "images", "chosen on", "dense", "ours", "shrunk, scale chosen", "shrunk to the budget"]
    return grid([*head, "ours above both", "least over budgets"], body)


TABLES = {
    "closer_quality": quality,
    "closer_area": area,
    "closer_learned": learned,
    "closer_context": context,
    "closer_planners": planners,
    "closer_by_level": by_level,
    "closer_neighbours": neighbours,
    "closer_areas": base_areas,
    "closer_risk": risk,
    "closer_risk_bounds": bounds,
}
