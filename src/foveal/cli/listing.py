"""Terminal text of listings, model cards and network checks."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from typer import style

from foveal.reporting.table import giga, table

if TYPE_CHECKING:
    from foveal.hub.rows import ArchitectureRow, MethodRow, ModelRow, PolicyRow
    from foveal.tiles.check import Report

TEXT_WIDTH = 100
"""Widest line of running text [characters]."""


def methods_text(rows: Sequence[MethodRow]) -> str:
    """List methods, what each adapts, decides by and lets the user set below its name."""
    width = _width(rows)
    blocks = []
    for row in rows:
        more = {"adapts": row.adapts, "decides": row.decides, "knob": row.knob, "source": row.source}
        lines = [line for key, value in more.items() if value for line in _entry(key, value, width, 2)]
        blocks.append("\n".join([_headline(row, width), *lines]))
    return "\n\n".join(blocks)


def policies_text(rows: Sequence[PolicyRow]) -> str:
    """List policies, a line each."""
    width = _width(rows)
    return "\n".join(_headline(row, width) for row in rows)


def models_text(models: Sequence[ModelRow], architectures: Sequence[ArchitectureRow]) -> str:
    """List the bundled models, then the architectures."""
    lines = [style("Models", bold=True)]
    lines += [model_text(model) for model in models] or ["none is bundled"]
    rows = [
        (row.name, _mega(row.parameters), giga(row.macs), row.says.partition(":")[0]) for row in architectures
    ]
    size = "x".join(str(side) for side in architectures[0].size)
    head = ("architecture", "parameters", f"MACs at {size}", "")
    return "\n".join([*lines, "", style("Architectures", bold=True), table(head, rows)])


def model_text(row: ModelRow) -> str:
    """Write the card of a model."""
    entries = {
        "network": f"{row.network}, {_mega(row.parameters)} parameters, {row.bytes / 1e6:.1f} MB",
        "cost": f"{giga(row.macs)} MACs at 1024x2048",
        "classes": f"{len(row.classes)}: {', '.join(row.classes)}",
        "tiles": f"{row.tile} px, levels up to {row.max_level}, coarse pass at {row.coarse_level}",
        **{key: _plain(value) for key, value in row.training.items()},
    }
    width = max(len(key) for key in entries) + 2
    lines = [line for key, value in entries.items() for line in _entry(key, value, width + 2, 2)]
    return "\n".join([style(row.name, bold=True), *lines])


@dataclass(frozen=True)
class FindingRow:
    """An operation that has no rule for tiles.

    Attributes:
        operation: What was called, and how.
        module: Path of the module that called it; empty for the network's own `forward`.
        kind: Class of that module.
        remedy: What the user can do about it.
    """

    operation: str
    module: str
    kind: str
    remedy: str


@dataclass(frozen=True)
class CheckRow:
    """What is known about a network on tiles.

    Attributes:
        network: Name of the network.
        findings: Operations that have no rule.
        declared: Modules that the network itself sends through a dense map.
        dense_modules: Further modules that would have to; None if that mends nothing.
        equal: Whether everything at level 0 gives the dense answer.
        difference: Largest difference from it; None if it cannot run.
        scale: Largest value of the dense answer.
        notes: What else the user should know.
    """

    network: str
    findings: tuple[FindingRow, ...]
    declared: tuple[str, ...]
    dense_modules: tuple[str, ...] | None
    equal: bool
    difference: float | None
    scale: float
    notes: tuple[str, ...]


def check_row(name: str, report: Report) -> CheckRow:
    """Describe what a survey found."""
    return CheckRow(
        network=name,
        findings=tuple(FindingRow(f.operation, f.module, f.kind, f.remedy) for f in report.findings),
        declared=report.declared,
        dense_modules=report.dense_modules,
        equal=report.equal,
        difference=report.difference,
        scale=report.scale,
        notes=report.notes,
    )


def check_text(name: str, report: Report) -> str:
    """Write what a survey found."""
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
    return f"with {style(f'dense_modules={names}', bold=True)} every operation has a rule for tiles"


def _width(rows: Sequence[MethodRow | PolicyRow]) -> int:
    return max(len(row.name) for row in rows) + 2


def _headline(row: MethodRow | PolicyRow, width: int) -> str:
    return style(row.name.ljust(width), bold=True) + row.says


def _entry(key: str, value: str, width: int, indent: int = 0) -> list[str]:
    """A key and its text, wrapped."""
    lines = textwrap.wrap(value, TEXT_WIDTH - width) or [""]
    first = " " * indent + style(key.ljust(width - indent), dim=True) + lines[0]
    return [first, *(" " * width + line for line in lines[1:])]


def _mega(parameters: int) -> str:
    return f"{parameters / 1e6:.2f} M"


def _plain(value: object) -> str:
    """A value of a card in words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
