"""docs/networks.md, from the rows that `scripts/networks.py` stores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

TIMES = ("dense_ms", "static_ms", "own_ms", "ms")
"""Columns of times: PyTorch, OpenVINO, our dense network, and the method."""
HEAD = """# Other people's networks

Written by `make networks` from runs of every network with random weights, at 256x256 px, at the ragged
132x164 px and at 512x768 px, with both methods; [networks.json](../benchmarks/networks/networks.json) has the
rows, and names the machine.
Each takes `foveal.adapt(network)` and a call. It compares every level with the dense network on the
reduced image, at two sizes, and refuses what differs by more than 1e-4 but for rounding; then both methods
run at budget 0.4.
*Dense* are modules that see the whole map, found by trying; *share* is what they take of the dense network's
multiplications at 256x256 px, or at four tiles if these are larger, which no budget saves. *Differs* is the
largest difference from the dense network with all tiles at one level, relative to its largest logit (-: no
level of these sizes fits its tile). *MACs* are counted while `model(image, budget=0.4)` runs at 512x768 px,
as a share of the dense network's. *ms* are medians of runs in turns on two cores in f32, there: the network
in PyTorch, to logits; in OpenVINO, to labels (-: it cannot run it, or was not there); *own* is
`model(image, budget=1.0)`, dense, and *0.4* this call, both to labels (\\*: by an earlier version than the
other rows). Transformers whose attention leaves nothing to refine at budget 0.4 are told so, below.

| network | encoder | dense modules | share | differs | MACs | ms, PyTorch | OpenVINO | own | 0.4 | runs |
|---|---|---|---|---|---|---|---|---|---|---|
"""
MANY = 4
"""Names of dense modules that a row lists."""


def page(rows: Sequence[Mapping[str, Any]], names: Iterable[str]) -> str:
    """Write the page of all rows; it says which of the names has none."""
    missing = [name for name in names if name not in {row["name"] for row in rows}]
    ran = [row for row in rows if not (row["refused"] or row["failed"] or row["told"])]
    good = sum(row["macs"] <= 0.45 for row in ran)
    compiled = sum(row["engine"] == "program" for row in ran)
    gains = {key: [row[key] / row["ms"] for row in ran if row.get(key) and row["ms"]] for key in TIMES[:-1]}
    summary = (
        f"{len(ran)} of {len(rows)} networks run at budget 0.4, {compiled} of them as a program; {good} take "
        "at most 0.45 of the dense network's MACs. Time at budget 0.4, against "
        f"{gain('PyTorch', gains['dense_ms'])}; {gain('OpenVINO', gains['static_ms'])}; "
        f"{gain('our own dense network', gains['own_ms'])}."
    )
    newest = max(
        (row["timed"] for row in ran if row["ms"]), key=[row["timed"] for row in ran].count, default=""
    )
    text = HEAD + "\n".join(line(row, newest) for row in ran) + f"\n\n{summary}\n"
    if missing:
        text += f"\nNot run at the commits of these rows: {', '.join(missing)}.\n"
    sections = {
        "told": "Nothing to refine at budget 0.4",
        "refused": "Refused by `foveal.adapt`",
        "failed": "Failed after it",
    }
    for key, title in sections.items():
        lines = [f"| {row['name']} | {row[key]} |" for row in rows if row[key]]
        if lines:
            text += f"\n## {title}\n\n| network | why |\n|---|---|\n" + "\n".join(lines) + "\n"
    return text


def gain(name: str, gains: list[float]) -> str:
    """Say how many times faster networks run."""
    if not gains:
        return f"{name}: not measured"
    least, most = min(gains), max(gains)
    return (
        f"{name} ({len(gains)} networks): {median(gains):.1f} times less in the median, "
        f"{least:.1f} to {most:.1f}"
    )


def line(row: Mapping[str, Any], newest: str) -> str:
    """Write a row; its times are marked if they are of another commit than the newest."""
    network, _, encoder = row["name"].partition("/")
    modules = ", ".join(f"`{name}`" for name in row["dense_modules"]) or "-"
    if len(row["dense_modules"]) > MANY:
        modules = f"{len(row['dense_modules'])} modules"
    share = f"{row['dense_share']:.0%}" if row["dense_modules"] else "-"
    runs = "program" if row["engine"] == "program" else f"layer by layer: {row['engine']}"
    mark = "*" if row["timed"] != newest else ""
    numbers = (
        "-" if row["difference"] is None else f"{row['difference']:.0e}",
        f"{row['macs']:.2f}",
        *(f"{row[key]:.0f}{mark}" if row.get(key) else "-" for key in TIMES),
    )
    return f"| {' | '.join((network, encoder or '-', modules, share, *numbers, runs))} |"
