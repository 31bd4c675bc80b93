"""What there is, as terminal text: lists, cards, surveys of networks."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from typer import style

from foveal.reporting.text import giga, table

if TYPE_CHECKING:
    from foveal.tiles.check import Report

TEXT_WIDTH = 100
"""Widest line of running text [characters]."""


def listing(rows: Sequence[Mapping[str, Any]]) -> str:
    """Names and what they say; further texts below, by their key."""
    width = max(len(row["name"]) for row in rows) + 2
    blocks = []
    for row in rows:
        more = {k: v for k, v in row.items() if k not in ("name", "says") and isinstance(v, str) and v}
        lines = [line for key, value in more.items() for line in _entry(key, value, width, 2)]
        blocks.append([style(row["name"].ljust(width), bold=True) + row["says"], *lines])
    gap = "\n\n" if any(len(block) > 1 for block in blocks) else "\n"
    return gap.join("\n".join(block) for block in blocks)


def models_text(models: Sequence[Mapping[str, Any]], architectures: Sequence[Mapping[str, Any]]) -> str:
    """Bundled models, then architectures."""
    lines = [style("Models", bold=True)]
    lines += [model_text(model) for model in models] or ["none is bundled"]
    rows = [
        (row["name"], _mega(row["parameters"]), giga(row["macs"]), row["says"].partition(":")[0])
        for row in architectures
    ]
    size = "x".join(str(side) for side in architectures[0]["size"])
    head = ("architecture", "parameters", f"MACs at {size}", "")
    return "\n".join([*lines, "", style("Architectures", bold=True), table(head, rows)])


def model_text(row: Mapping[str, Any]) -> str:
    """The card of a model."""
    classes = row["classes"]
    entries = {
        "network": f"{row['network']}, {_mega(row['parameters'])} parameters, {row['bytes'] / 1e6:.1f} MB",
        "cost": f"{giga(row['macs'])} MACs at 1024x2048",
        "classes": f"{len(classes)}: {', '.join(classes)}",
        "tiles": f"{row['tile']} px, levels up to {row['max_level']}, coarse pass at {row['coarse_level']}",
        **{key: _plain(value) for key, value in row["training"].items()},
    }
    width = max(len(key) for key in entries) + 2
    lines = [line for key, value in entries.items() for line in _entry(key, value, width + 2, 2)]
    return "\n".join([style(row["name"], bold=True), *lines])


def check_row(name: str, report: Report) -> dict[str, Any]:
    """What a survey found, as plain values."""
    findings = [
        {"operation": f.operation, "module": f.module, "kind": f.kind, "remedy": f.remedy}
        for f in report.findings
    ]
    return {
        "network": name,
        "findings": findings,
        "declared": list(report.declared),
        "dense_modules": None if report.dense_modules is None else list(report.dense_modules),
        "equal": report.equal,
        "difference": report.difference,
        "scale": report.scale,
        "notes": list(report.notes),
    }


def check_text(name: str, report: Report) -> str:
    """What a survey found, for the terminal."""
    lines = []
    if report.declared:
        lines.append(f"{name} itself sends {', '.join(report.declared)} through a dense map")
    if not report.findings:
        lines.append(f"{style('every operation has a rule', fg='green')}: {name} runs on tiles")
    for finding in report.findings:
        where = f"{finding.module} ({finding.kind})" if finding.module else f"forward of {finding.kind}"
        lines += [f"{style(finding.operation, fg='yellow')}", f"    in {where}: {finding.remedy}"]
    if report.findings:
        lines += ["", _mended(report)]
    if report.difference is not None:
        verdict = "equals" if report.equal else style("does NOT equal", fg="red")
        lines.append(
            f"everything at level 0 {verdict} the dense network: largest difference {report.difference:.2g}, "
            f"of values up to {report.scale:.3g}"
        )
    return "\n".join([*lines, *(f"note: {note}" for note in report.notes)])


def _mended(report: Report) -> str:
    if report.dense_modules is None:
        return "no choice of dense_modules mends all of this"
    names = (*report.declared, *report.dense_modules)
    return f"with {style(f'dense_modules={names}', bold=True)} every operation has a meaning on tiles"


def _entry(key: str, value: str, width: int, indent: int = 0) -> list[str]:
    """A key and its text, wrapped."""
    lines = textwrap.wrap(value, TEXT_WIDTH - width) or [""]
    first = " " * indent + style(key.ljust(width - indent), dim=True) + lines[0]
    return [first, *(" " * width + line for line in lines[1:])]


def _mega(parameters: int) -> str:
    return f"{parameters / 1e6:.2f} M"


def _plain(value: Any) -> str:
    """A value of a card in words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
