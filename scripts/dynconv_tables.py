"""Tables of docs/dynconv.md, from the JSON files in benchmarks/dynconv."""

from __future__ import annotations

import json
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks" / "dynconv"


def dynconv() -> str:
    """Return quality over work of gates and of as many positions at random, a row per budget."""
    rows = json.loads((FOLDER / "camvid_rn18.json").read_text())["rows"]
    found = {}
    for row in rows[1:]:
        if row["method"] == "dynconv":
            settings = row["settings"]
            found[settings["threshold"], row["budget"], settings["choice"]] = row
    lines = [
        "| budget | work | gates: mIoU | agreement | positions at random: mIoU | agreement |",
        "|---|---|---|---|---|---|",
    ]
    for threshold, budget in sorted({key[:2] for key in found}, key=lambda key: (key[0] is not None, key[1])):
        ours, theirs = (found[threshold, budget, choice] for choice in ("gates", "random"))
        name = f"{budget:g}" if threshold is None else "gates alone (`--threshold 0 --budget 1`)"
        cells = [f"{100 * row['miou']:.1f} | {100 * row['agreement']:.1f} %" for row in (ours, theirs)]
        lines.append(f"| {name} | {ours['work']:.3f} | {' | '.join(cells)} |")
    lines.append(f"| everything open | 1.000 | {100 * rows[0]['miou']:.1f} | 100.0 % | | |")
    return "\n".join(lines)


def dynconv_speed() -> str:
    """Return times of units and networks at 40 % of their positions beside the same ones dense."""
    lines = [
        "| network, 960x720 | decided as one | open | work | ms | dense ms | share of dense |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in json.loads((FOLDER / "speed.json").read_text())["rows"]:
        lines.append(
            f"| {row['network']} | {row['side']}x{row['side']} | {row['open']:.2f} | {row['work']:.2f} | "
            f"{row['ms']:.0f} | {row['dense_ms']:.0f} | {row['share_of_dense_ms']:.2f} |"
        )
    return "\n".join(lines)
