"""Terminal text of listings, model cards and network checks."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from typer import style

from foveal.reporting.table import giga, table
from foveal.storage.names import shown

if TYPE_CHECKING:
    from foveal.adaptive.gain import Gain
    from foveal.compatibility import Comparison, MixedRun, NetworkReport
    from foveal.hub.rows import ArchitectureRow, MethodRow, ModelRow, PolicyRow

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
        "images": f"{row.channels} channels",
        "cost": f"{giga(row.macs)} MACs at 1024x2048",
        "classes": f"{len(row.classes)}: {', '.join(row.classes)}",
        "tiles": f"{row.tile} px, levels up to {row.max_level}, coarse pass at {row.coarse_level}",
        **{key: _plain(value) for key, value in row.training.items()},
    }
    width = max(len(key) for key in entries) + 2
    lines = [line for key, value in entries.items() for line in _entry(key, value, width + 2, 2)]
    return "\n".join([style(shown(row.name), bold=True), *lines])


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
        equal: Whether every level alone gives the dense answer, and mixed ones run.
        judged: Whether values of mixed levels were found right; not where nothing could tell.
        comparisons: Every level alone, at a round size and a ragged one.
        mixed: Random plans of several levels.
        dense_share: Share of the dense network's MACs that the dense modules take; None if it cannot run.
        macs: MACs at the budget, as a share of the dense network's; None if it cannot run.
        budget: What they are predicted for.
        notes: What else the user should know.
        gain: What it takes with a method at the budget; None if it does not run on tiles.
        code: What to paste to run it.
    """

    network: str
    findings: tuple[FindingRow, ...]
    declared: tuple[str, ...]
    dense_modules: tuple[str, ...] | None
    equal: bool
    judged: bool
    comparisons: tuple[Comparison, ...]
    mixed: tuple[MixedRun, ...]
    dense_share: float | None
    macs: float | None
    budget: float
    notes: tuple[str, ...]
    gain: Gain | None
    code: str


def check_row(name: str, report: NetworkReport, method: str, gain: Gain | None) -> CheckRow:
    """Describe what a check found."""
    return CheckRow(
        network=name,
        findings=tuple(FindingRow(f.operation, f.module, f.kind, f.remedy) for f in report.findings),
        declared=report.declared,
        dense_modules=report.dense_modules,
        equal=report.equal,
        judged=report.judged,
        comparisons=report.comparisons,
        mixed=report.mixed,
        dense_share=report.dense_share,
        macs=report.macs,
        budget=report.budget,
        notes=report.notes,
        gain=gain,
        code=report.code_for(method) if report.equal else "",
    )


def _width(rows: Sequence[MethodRow | PolicyRow]) -> int:
    return max(len(row.name) for row in rows) + 2


def _headline(row: MethodRow | PolicyRow, width: int) -> str:
    return style(row.name.ljust(width), bold=True) + row.says


def _entry(key: str, value: str, width: int, indent: int = 0) -> list[str]:
    """A key and its text, wrapped."""
    lines = textwrap.wrap(shown(value), TEXT_WIDTH - width) or [""]
    first = " " * indent + style(shown(key).ljust(width - indent), dim=True) + lines[0]
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
